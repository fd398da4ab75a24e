package forward

import (
	"encoding/binary"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/wire"
)

// Alias is a name that an answer leads to by CNAME records.
type Alias struct {
	// Name is the name, in lower case.
	Name wire.Name
	// At is where the name is in the message that AppendUntil appends, in octets.
	At int
	// Records is how many records lead to it.
	Records int

	end int // of these records in the message
}

// Aliases are the names that the answer leads to, in the order of the chain; most answers have none. They must not be changed.
func (a *Answer) Aliases() []Alias { return a.aliases }

// Apart reports whether SetApart was called with the generation last: so that who knows that the chain does not concern it need not look
// again. Generations begin with 1.
func (a *Answer) Apart(generation uint64) bool { return a.apart.Load() == generation }

// SetApart takes note of the generation for Apart.
func (a *Answer) SetApart(generation uint64) { a.apart.Store(generation) }

// findAliases takes note of the aliases of a message that was packed as a.message, given where its answers begin.
func (a *Answer) findAliases(msg *dns.Msg, off int) {
	if msg.Question[0].Qtype == dns.TypeCNAME { // that is what is asked for, and leads nowhere
		return
	}
	signed := false // what comes next may be the signature of the last alias
	for i, rr := range msg.Answer {
		data := skipName(a.message, off) + 10
		off = data + int(binary.BigEndian.Uint16(a.message[data-2:]))
		switch rr := rr.(type) {
		case *dns.CNAME:
			name, err := wire.ParseName(rr.Target)
			if err != nil { // which no name is that was read from a message
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

// pointerMark are the bits of the first octet of a compressed name's pointer (RFC 1035 4.1.4).
const pointerMark = 0xc0
