package forward

import (
	"encoding/binary"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/wire"
)

// Alias is a name that an answer leads to through CNAME records.
type Alias struct {
	// Name is the name, in lower case.
	Name wire.Name
	// At is the offset of the name, in octets, in the message that AppendUntil appends.
	At int
	// Records is the number of records that lead to the name.
	Records int

	end int // where these records end in the message
}

// Aliases returns the names that the answer leads to, in the order of the chain; most answers have none. The caller must not change them.
func (a *Answer) Aliases() []Alias { return a.aliases }

// Apart reports whether the last call of SetApart had this generation, so that a caller that has found the chain to be of no concern need
// not check it again. Generations begin with 1.
func (a *Answer) Apart(generation uint64) bool { return a.apart.Load() == generation }

// SetApart records the generation for Apart.
func (a *Answer) SetApart(generation uint64) { a.apart.Store(generation) }

// findAliases records the aliases of msg, which was packed as a.message; off is where its answer section begins.
func (a *Answer) findAliases(msg *dns.Msg, off int) {
	if msg.Question[0].Qtype == dns.TypeCNAME { // the CNAME itself is asked for, and leads nowhere
		return
	}
	signed := false // the next record may be the signature of the last alias
	for i, rr := range msg.Answer {
		data := skipName(a.message, off) + 10
		off = data + int(binary.BigEndian.Uint16(a.message[data-2:]))
		switch rr := rr.(type) {
		case *dns.CNAME:
			name, err := wire.ParseName(rr.Target)
			if err != nil { // impossible for a name that was read from a message
				return
			}
			if a.message[data] >= pointerMark {
				data = int(binary.BigEndian.Uint16(a.message[data:]) &^ (pointerMark << 8))
			}
			a.aliases = append(a.aliases, Alias{Name: name, At: data, Records: i + 1, end: off})
			signed = true
		case *dns.RRSIG:
			if signed {
				last := &a.aliases[len(a.aliases)-1]
				last.Records, last.end = i+1, off
			}
		default:
			signed = false
		}
	}
}

// pointerMark is the pair of bits that marks the first octet of a compression pointer (RFC 1035 4.1.4).
const pointerMark = 0xc0
