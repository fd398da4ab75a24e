package forward

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/wire"
)

// query is a question as sent once: each try has its own ID and capitals.
type query struct {
	framed []byte // the message preceded by its length, as sent over TCP (RFC 1035 4.2.2)
	name   int    // length of the name
}

// Flags of a query: RD, and AD, which has the upstream say whether it vouches for its answer (RFC 6840 5.7).
const (
	flagsOfQuery = 1<<8 | flagAD
	flagCD       = 1 << 4
	flagDO       = 1 << 15
)

// queryBlock is the block length, in octets, to which queries are padded (RFC 8467 4.1).
const queryBlock = 128

// newQuery creates a query. udpSize is the size offered in EDNS; 0 means no EDNS, and so no padding.
func newQuery(q *Question, udpSize int, randomCase, padded bool) *query {
	const lengthSize, afterName, opt, option = 2, 4, 11, 4
	buf := make([]byte, lengthSize+wire.HeaderSize, lengthSize+wire.HeaderSize+len(q.Name)+afterName+opt+option+queryBlock)
	flags := uint16(flagsOfQuery)
	if q.CD {
		flags |= flagCD
	}
	msg := buf[lengthSize:]
	binary.BigEndian.PutUint16(msg[2:], flags)
	binary.BigEndian.PutUint16(msg[4:], 1)
	buf = append(buf, q.Name...)
	if randomCase {
		mixCase(buf[len(buf)-len(q.Name):])
	}
	buf = binary.BigEndian.AppendUint16(buf, q.Type)
	buf = binary.BigEndian.AppendUint16(buf, q.Class)
	if udpSize > 0 {
		binary.BigEndian.PutUint16(msg[10:], 1)
		var do uint32
		if q.DO {
			do = flagDO
		}
		buf = append(buf, 0)
		buf = binary.BigEndian.AppendUint16(buf, dns.TypeOPT)
		buf = binary.BigEndian.AppendUint16(buf, uint16(udpSize)) //nolint:gosec // checked with the settings
		buf = binary.BigEndian.AppendUint32(buf, do)
		if padded {
			size := len(buf) - lengthSize + 2 + option
			padding := (queryBlock - size%queryBlock) % queryBlock
			buf = binary.BigEndian.AppendUint16(buf, uint16(option+padding))
			buf = append(buf, 0, dns.EDNS0PADDING, 0, byte(padding))
			buf = append(buf, make([]byte, padding)...)
		} else {
			buf = binary.BigEndian.AppendUint16(buf, 0)
		}
	}
	binary.BigEndian.PutUint16(buf, uint16(len(buf)-lengthSize)) //nolint:gosec // a few hundred octets
	made := &query{framed: buf, name: len(q.Name)}
	made.renewID()
	return made
}

func (q *query) id() uint16 { return binary.BigEndian.Uint16(q.message()) }

func (q *query) renewID() {
	_, _ = rand.Read(q.message()[:2]) // it does not fail
}

// mixCase capitalises about half the letters of a name in wire form. The length of a label is never a letter.
func mixCase(name []byte) {
	var coins [wire.MaxName]byte
	_, _ = rand.Read(coins[:len(name)]) // it does not fail
	for i, c := range name {
		if 'a' <= c && c <= 'z' && coins[i]&1 == 1 {
			name[i] -= 'a' - 'A'
		}
	}
}

func (q *query) message() []byte { return q.framed[2:] }

// question returns the question as it was sent, with type and class.
func (q *query) question() []byte {
	return q.message()[wire.HeaderSize : wire.HeaderSize+q.name+4]
}

// sentName returns the name as it was sent.
func (q *query) sentName() string {
	return wire.Name(q.question()[:q.name]).String()
}

// Reasons why a message is not the expected response.
const (
	matches      = ""
	tooShort     = "short"
	otherID      = "id"
	noResponse   = "header"
	otherName    = "question"
	otherCase    = "case"
	noQuestion   = "no_question"
	notDecodable = "undecodable"
)

// match returns why a message is not the response to the query; matches if it is.
func (q *query) match(msg []byte) (mismatch string) {
	if len(msg) < wire.HeaderSize {
		return tooShort
	}
	sent := q.message()
	if msg[0] != sent[0] || msg[1] != sent[1] {
		return otherID
	}
	const responseAndOpcode = 0xf8
	if msg[2]&responseAndOpcode != 0x80 {
		return noResponse
	}
	switch binary.BigEndian.Uint16(msg[4:]) {
	case 0:
		return noQuestion
	case 1:
	default:
		return otherName
	}
	asked := q.question()
	if len(msg) < wire.HeaderSize+len(asked) {
		return otherName
	}
	answered := msg[wire.HeaderSize : wire.HeaderSize+len(asked)]
	if bytes.Equal(answered, asked) {
		return matches
	}
	name := q.name
	if !bytes.Equal(answered[name:], asked[name:]) || !equalFold(answered[:name], asked[:name]) {
		return otherName
	}
	return otherCase
}

func (q *query) hasCapitals() bool {
	return bytes.ContainsFunc(q.question()[:q.name], func(c rune) bool { return 'A' <= c && c <= 'Z' })
}

// equalFold compares names in wire form (RFC 4343).
func equalFold(a, b []byte) bool {
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// truncated reports whether the TC flag of the message is set.
func truncated(msg []byte) bool { return msg[2]&2 != 0 }

// decode unpacks a message. One that ends before the records it counts is an error.
func decode(packed []byte) (*dns.Msg, error) {
	msg := new(dns.Msg)
	if err := msg.Unpack(packed); err != nil {
		return nil, fmt.Errorf("the response cannot be read: %w", err)
	}
	for i, n := range []int{len(msg.Question), len(msg.Answer), len(msg.Ns), len(msg.Extra)} {
		if int(binary.BigEndian.Uint16(packed[4+2*i:])) != n {
			return nil, errors.New("the response ends before its records do")
		}
	}
	return msg, nil
}
