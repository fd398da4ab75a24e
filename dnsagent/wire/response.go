package wire

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// QuestionPointer is the owner name of records at the queried name: a pointer to the question (RFC 1035 4.1.4).
const QuestionPointer = 0xc000 | HeaderSize

// Response holds everything in a response besides the records.
type Response struct {
	// RCode is the response code; those above 15 need EDNS.
	RCode int
	// AA, TC, RA and AD are header flags. RD and CD are those of the query.
	AA, TC, RA, AD bool
	// Answers and Authority are the numbers of records in those sections.
	Answers, Authority int
	// UDPSize is the UDP payload size announced in EDNS.
	UDPSize uint16
	// Cookie is the data of the COOKIE option; empty means none.
	Cookie []byte
	// Info and Text are the code and text of an extended DNS error (RFC 8914); NoInfo means none.
	Info int
	Text string
	// Block is the block size of padding in octets (RFC 7830); 0 means no padding.
	Block int
}

// NoInfo means that there is no extended DNS error.
const NoInfo = -1

// Begin starts the response to a query: it appends room for the header, and the question as it was asked.
func (q *Query) Begin(buf []byte) []byte {
	buf = append(buf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	return append(buf, q.question...)
}

// BodySize returns the size of the response in octets before the first record.
func (q *Query) BodySize() int { return HeaderSize + len(q.question) }

// Finish completes the response in buf, which begins with what Begin appended: it fills in the header, and appends an OPT record
// if the query had one.
func (q *Query) Finish(buf []byte, r *Response) []byte {
	flags := uint16(flagQR) | uint16(q.Opcode)<<11 | uint16(r.RCode&0xf)
	for _, f := range [...]struct {
		set bool
		bit uint16
	}{{r.AA, flagAA}, {r.TC, flagTC}, {q.RD, flagRD}, {r.RA, flagRA}, {r.AD, flagAD}, {q.CD, flagCD}} {
		if f.set {
			flags |= f.bit
		}
	}
	additional := 0
	if q.EDNS {
		additional = 1
		buf = q.appendOPT(buf, r)
	}
	questions := 0
	if q.question != nil {
		questions = 1
	}
	for i, v := range [...]int{int(q.ID), int(flags), questions, r.Answers, r.Authority, additional} {
		binary.BigEndian.PutUint16(buf[2*i:], uint16(v)) //nolint:gosec // counts are bounded by the size of a message
	}
	return buf
}

// OPTSize returns the number of octets that Finish appends, without padding.
func (q *Query) OPTSize(r *Response) int {
	if !q.EDNS {
		return 0
	}
	n := 11
	if len(r.Cookie) > 0 {
		n += 4 + len(r.Cookie)
	}
	if r.Info != NoInfo {
		n += 6 + len(r.Text)
	}
	return n
}

func (q *Query) appendOPT(buf []byte, r *Response) []byte {
	buf = append(buf, 0, 0, byte(dns.TypeOPT))
	buf = binary.BigEndian.AppendUint16(buf, r.UDPSize)
	var do byte
	if q.DO {
		do = 0x80 // RFC 3225 3
	}
	buf = append(buf, byte(r.RCode>>4), 0, do, 0, 0, 0) //nolint:gosec // codes have twelve bits
	data := len(buf)
	if len(r.Cookie) > 0 {
		buf = append(buf, 0, dns.EDNS0COOKIE, 0, byte(len(r.Cookie))) //nolint:gosec // at most 40 octets (RFC 7873 4)
		buf = append(buf, r.Cookie...)
	}
	if r.Info != NoInfo {
		buf = append(buf, 0, dns.EDNS0EDE)
		buf = binary.BigEndian.AppendUint16(buf, uint16(2+len(r.Text))) //nolint:gosec // texts are short
		buf = binary.BigEndian.AppendUint16(buf, uint16(r.Info))        //nolint:gosec // a code
		buf = append(buf, r.Text...)
	}
	if size := len(buf) + paddingHead; r.Block > 0 && size <= dns.MaxMsgSize {
		n := min((r.Block-size%r.Block)%r.Block, dns.MaxMsgSize-size)
		buf = append(buf, 0, dns.EDNS0PADDING)
		buf = binary.BigEndian.AppendUint16(buf, uint16(n)) //nolint:gosec // less than MaxMsgSize
		buf = append(buf, make([]byte, n)...)
	}
	binary.BigEndian.PutUint16(buf[data-2:], uint16(len(buf)-data)) //nolint:gosec // at most a message
	return buf
}

// paddingHead is the size of an empty padding option in octets.
const paddingHead = 4

// Question copies the question of q into a response made for another query for the same name, type and class.
func (q *Query) Question(response []byte) { copy(response[HeaderSize:], q.question) }
