package wire

import (
	"encoding/binary"
	"unsafe"

	"github.com/miekg/dns"
)

// HeaderSize is the size of a message header in octets (RFC 1035 4.1.1).
const HeaderSize = 12

// Header flags.
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagAD = 1 << 5
	flagCD = 1 << 4
)

// Query is a parsed query. It refers to the message it was parsed from.
type Query struct {
	ID     uint16
	Opcode uint8
	// RD, AD and CD are header flags, DO is an EDNS flag.
	RD, AD, CD, DO bool
	// Type and Class are those of the question; both are zero if there is none.
	Type, Class uint16
	// EDNS reports whether there was an OPT record (RFC 6891), which the fields below are from.
	EDNS    bool
	Version uint8
	UDPSize uint16
	// Padded reports whether there was a padding option (RFC 7830).
	Padded bool
	// Cookie is the data of the COOKIE option (RFC 7873), or nil if there is none.
	Cookie []byte

	question []byte // as asked, with type and class; nil if there is no question
	length   int    // length of the name in key
	key      [MaxName]byte
}

// Verdict is the result of parsing a message.
type Verdict uint8

// The verdicts.
const (
	// Fine means that the message can be answered. If its opcode is not QUERY, only the header has been parsed.
	Fine Verdict = iota
	// Malformed means that the message is answered with FORMERR.
	Malformed
	// Ignored means that the message is not answered: it is a response, or too short.
	Ignored
)

// maxRecords is the maximum number of records in all sections of a query; known uses have one (IXFR, NOTIFY) or two (OPT and TSIG).
const maxRecords = 4

// Parse parses a message into q.
func (q *Query) Parse(msg []byte) Verdict {
	q.question, q.length, q.Cookie = nil, 0, nil
	q.Type, q.Class, q.EDNS, q.DO, q.Version, q.UDPSize, q.Padded = 0, 0, false, false, 0, 0, false
	if len(msg) < HeaderSize {
		return Ignored
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&flagQR != 0 {
		return Ignored
	}
	q.ID = binary.BigEndian.Uint16(msg)
	q.Opcode = uint8(flags >> 11 & 0xf)
	q.RD, q.AD, q.CD = flags&flagRD != 0, flags&flagAD != 0, flags&flagCD != 0
	if q.Opcode != dns.OpcodeQuery {
		return Fine
	}
	questions := binary.BigEndian.Uint16(msg[4:])
	off := HeaderSize
	switch questions {
	case 0: // asks for a server cookie (RFC 7873 5.4)
	case 1:
		if off = q.readQuestion(msg); off == 0 {
			return Malformed
		}
	default:
		return Malformed // RFC 9619
	}
	var records int
	for section := range 3 {
		n := int(binary.BigEndian.Uint16(msg[6+2*section:]))
		if records += n; records > maxRecords {
			return Malformed
		}
		for range n {
			if off = q.readRecord(msg, off, section == 2); off == 0 {
				return Malformed
			}
		}
	}
	if questions == 0 && q.Cookie == nil {
		return Malformed
	}
	return Fine
}

// readQuestion parses the question and returns the offset of its end, or 0 if it is malformed. Its name cannot be compressed: no
// name precedes it.
func (q *Query) readQuestion(msg []byte) int {
	off := HeaderSize
	for {
		if off >= len(msg) {
			return 0
		}
		n := int(msg[off])
		if n > 63 || off+1+n > len(msg) || off-HeaderSize+1+n > MaxName {
			return 0
		}
		start := off - HeaderSize
		q.key[start] = byte(n)
		for i := 1; i <= n; i++ {
			c := msg[off+i]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			q.key[start+i] = c
		}
		off += 1 + n
		if n == 0 {
			break
		}
	}
	if off+4 > len(msg) {
		return 0
	}
	q.length = off - HeaderSize
	q.Type, q.Class = binary.BigEndian.Uint16(msg[off:]), binary.BigEndian.Uint16(msg[off+2:])
	q.question = msg[HeaderSize : off+4]
	return off + 4
}

// readRecord skips a record, but parses an OPT record. It returns the offset of the end, or 0 if the record is malformed.
func (q *Query) readRecord(msg []byte, off int, additional bool) int {
	root := off < len(msg) && msg[off] == 0
	if off = skipName(msg, off); off == 0 || off+10 > len(msg) {
		return 0
	}
	rtype, class := binary.BigEndian.Uint16(msg[off:]), binary.BigEndian.Uint16(msg[off+2:])
	ttl := binary.BigEndian.Uint32(msg[off+4:])
	end := off + 10 + int(binary.BigEndian.Uint16(msg[off+8:]))
	if end > len(msg) {
		return 0
	}
	if rtype != dns.TypeOPT {
		return end
	}
	if !additional || !root || q.EDNS { // RFC 6891 6.1.1
		return 0
	}
	q.EDNS, q.UDPSize, q.Version, q.DO = true, class, uint8(ttl>>16), ttl&(1<<15) != 0 //nolint:gosec // the version octet
	for data := msg[off+10 : end]; len(data) > 0; {
		if len(data) < 4 {
			return 0
		}
		n := int(binary.BigEndian.Uint16(data[2:]))
		if len(data) < 4+n {
			return 0
		}
		switch code := binary.BigEndian.Uint16(data); {
		case code == dns.EDNS0COOKIE && q.Cookie == nil:
			q.Cookie = data[4 : 4+n]
		case code == dns.EDNS0PADDING:
			q.Padded = true
		}
		data = data[4+n:]
	}
	return end
}

// skipName returns the offset of the end of a name, or 0 if the name is malformed.
func skipName(msg []byte, off int) int {
	for start := off; off < len(msg) && off-start < MaxName; {
		switch n := int(msg[off]); {
		case n == 0:
			return off + 1
		case n&0xc0 == 0xc0:
			if off+2 > len(msg) {
				return 0
			}
			return off + 2
		case n > 63:
			return 0
		default:
			off += 1 + n
		}
	}
	return 0
}

// HasQuestion reports whether there is a question.
func (q *Query) HasQuestion() bool { return q.question != nil }

// Name returns the queried name in lower case. It is valid while q is in use and not parsed again: copy it to keep it.
func (q *Query) Name() Name { return Name(unsafe.String(&q.key[0], q.length)) } //nolint:gosec // see above
