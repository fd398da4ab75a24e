package call

import "encoding/binary"

// frames follows the frames of a WebSocket that a server sends (RFC 6455 5.2), as far as it takes to know where one ends. The zero value
// is the beginning.
type frames struct {
	header [10]byte // of the frame that begins
	have   int      // how much of it came
	left   uint64   // of the payload
	last   bool     // the present frame is a close frame
	over   bool     // nothing can follow: a close frame came, or what no server sends
}

// The bits of a frame's header, and its opcodes.
const (
	opcodeBits = 0x0f
	maskBit    = 0x80
	lengthBits = 0x7f
	length16   = 126
	length64   = 127
	opText     = 2 // the last of continuation, text and binary
	opClose    = 8
	opPong     = 10
)

// pass follows bytes that are passed on.
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

// begin reads the header once all of it came.
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

// between reports whether a frame can be put in here.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.over }

// The status codes of connections that the gateway closes (RFC 6455 7.4.1).
const (
	goingAway       = 1001
	policyViolation = 1008
)

// closeFrame makes a close frame, of which why may have up to 123 bytes (RFC 6455 5.5). It is not masked, because the gateway stands in for
// the server.
func closeFrame(code uint16, why string) []byte {
	const final, most = 0x80, 123
	payload := append(binary.BigEndian.AppendUint16(nil, code), why[:min(len(why), most)]...)
	return append([]byte{final | opClose, byte(len(payload))}, payload...) //nolint:gosec // 125 at most
}
