package call

import "encoding/binary"

// frames tracks the WebSocket frames that a server sends (RFC 6455 5.2), as far as needed to know where each one ends. The zero value is at
// the beginning of the stream.
type frames struct {
	header [10]byte // of the frame that is beginning
	have   int      // how many bytes of the header have arrived
	left   uint64   // payload bytes still to come
	last   bool     // the current frame is a close frame
	over   bool     // nothing can follow: a close frame was sent, or bytes that no server sends
}

// The bits of a frame header, and the opcodes.
const (
	opcodeBits = 0x0f
	maskBit    = 0x80
	lengthBits = 0x7f
	length16   = 126
	length64   = 127
	opText     = 2 // the highest of continuation, text and binary
	opClose    = 8
	opPong     = 10
)

// pass tracks bytes that are passed on.
func (f *frames) pass(p []byte) {
	for len(p) > 0 && !f.over {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
		} else {
			f.header[f.have] = p[0]
			f.have++
			p = p[1:]
			f.begin()
		}
		if f.last && f.left == 0 && f.have == 0 {
			f.over = true
		}
	}
}

// begin parses the header once all of it has arrived.
func (f *frames) begin() {
	if f.have < 2 {
		return
	}
	opcode, length := f.header[0]&opcodeBits, f.header[1]&lengthBits
	if f.header[1]&maskBit != 0 || opcode > opPong || opcode > opText && opcode < opClose {
		f.over = true
		return
	}
	switch {
	case length < length16:
		f.left = uint64(length)
	case length == length16 && f.have == 4:
		f.left = uint64(binary.BigEndian.Uint16(f.header[2:]))
	case length == length64 && f.have == 10:
		f.left = binary.BigEndian.Uint64(f.header[2:])
	default:
		return
	}
	f.have, f.last = 0, opcode == opClose
}

// between reports whether another frame can be inserted here.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.over }

// The status codes with which the gateway closes connections (RFC 6455 7.4.1).
const (
	goingAway       = 1001
	policyViolation = 1008
)

// closeFrame returns a close frame with at most 123 bytes of why (RFC 6455 5.5). The frame is not masked, because the gateway stands in for
// the server.
func closeFrame(code uint16, why string) []byte {
	const final, most = 0x80, 123
	payload := append(binary.BigEndian.AppendUint16(nil, code), why[:min(len(why), most)]...)
	return append([]byte{final | opClose, byte(len(payload))}, payload...) //nolint:gosec // 125 at most
}
