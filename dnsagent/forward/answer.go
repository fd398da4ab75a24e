package forward

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/cache"
	"github.com/openmep/mep/dnsagent/wire"
)

// Question is what is asked.
type Question = cache.Question

const (
	// staleTTL is the TTL of the records in a stale answer (RFC 8767 4).
	staleTTL = 30
	// failureTTL is how long a failure to answer a question is remembered (RFC 9520 3.2).
	failureTTL = time.Second
	// answerOverhead is the size of an Answer without the contents of its slices.
	answerOverhead = 224
	// aliasOverhead is the size of an Alias without its name.
	aliasOverhead = 48
	// failureOverhead is the size of a Failure with all its errors.
	failureOverhead = 512
)

// Info is the extended error in an upstream's response (RFC 8914).
type Info struct {
	// Code is the INFO-CODE.
	Code uint16
	// Text is the EXTRA-TEXT, at most 128 octets.
	Text string
}

// Answer is an upstream's answer to a question. Its content does not change.
type Answer struct {
	// AD is the AD flag of the header: the upstream vouches for the data (RFC 6840 5.8).
	AD bool
	// Upstream is the upstream that gave the answer, for display.
	Upstream string
	// Info is the extended error in the upstream's response; nil if there was none.
	Info *Info

	message []byte   // packed, without OPT
	ttls    []uint16 // offsets of the TTLs in message
	rcode   int
	born    time.Time
	ttl     time.Duration // lifetime; 0: only for callers already waiting
	failure *Failure      // set when there was no answer; the Answer then only records that
	aliases []Alias

	hits       atomic.Uint32 // up to prefetchHits
	refreshing atomic.Bool   // its successor has been requested
	apart      atomic.Uint64 // the generation set by SetApart
	recheck    atomic.Int64  // up to which age, in nanoseconds, it is served stale without asking upstreams
}

// newAnswer packs a response that may be kept in full. The first question of msg is the one that was asked.
func newAnswer(msg *dns.Msg, born time.Time, ttl time.Duration) (*Answer, error) {
	packed, err := msg.Pack()
	if err != nil {
		return nil, err
	}
	if len(packed) > dns.MaxMsgSize {
		return nil, dns.ErrBuf
	}
	// The library accepts records whose data ends early, and packs the names missing from them as nothing at all.
	if err := new(dns.Msg).Unpack(packed); err != nil {
		return nil, err
	}
	a := &Answer{AD: msg.AuthenticatedData, rcode: msg.Rcode, born: born, ttl: ttl}
	a.message = make([]byte, len(packed)) // the slice from Pack has room for the uncompressed message
	copy(a.message, packed)
	records := len(msg.Answer) + len(msg.Ns)
	if records == 0 {
		return a, nil
	}
	a.ttls = make([]uint16, 0, records)
	off := skipName(a.message, wire.HeaderSize) + 4
	a.findAliases(msg, off)
	for range records {
		off = skipName(a.message, off)
		a.ttls = append(a.ttls, uint16(off+4)) //nolint:gosec // a message has at most 65,535 octets
		off += 10 + int(binary.BigEndian.Uint16(a.message[off+8:]))
	}
	return a, nil
}

// skipName returns the offset of the end of the name at off, in a message packed by newAnswer.
func skipName(msg []byte, off int) int {
	for {
		switch n := int(msg[off]); {
		case n == 0:
			return off + 1
		case n >= pointerMark:
			return off + 2
		default:
			off += 1 + n
		}
	}
}

// Len returns the number of octets that Append appends.
func (a *Answer) Len() int { return len(a.message) }

// Append appends the answer as a message: the header with ID 0, QR, AD, the response code and the counts; the question in lower case,
// uncompressed; and the answer and authority sections. There is no OPT record. Names in the records may point into the question, so they
// take on the client's case when the caller overwrites the question with the client's. TTLs are reduced by the age of the answer; in a
// stale answer they are 30 s (RFC 8767 4), and AD is clear. Append does not allocate when buf has room.
func (a *Answer) Append(buf []byte, now time.Time) []byte {
	return a.append(buf, now, len(a.message), a.ttls)
}

// AppendUntil is like Append, but stops after the records that lead to alias, an alias of the answer. The counts in the header are still
// those of the whole answer.
func (a *Answer) AppendUntil(buf []byte, now time.Time, alias *Alias) []byte {
	return a.append(buf, now, alias.end, a.ttls[:alias.Records])
}

// append appends the message up to end; ttls are the offsets of the TTLs in that part.
func (a *Answer) append(buf []byte, now time.Time, end int, ttls []uint16) []byte {
	start := len(buf)
	buf = append(buf, a.message[:end]...)
	msg := buf[start:]
	age := a.age(now)
	if a.staleAt(age) {
		msg[3] &^= flagAD
		for _, off := range ttls {
			binary.BigEndian.PutUint32(msg[off:], staleTTL)
		}
		return buf
	}
	seconds := uint32(age / time.Second) //nolint:gosec // nobody keeps an answer for a century
	if seconds == 0 {
		return buf
	}
	for _, off := range ttls {
		ttl := binary.BigEndian.Uint32(msg[off:])
		binary.BigEndian.PutUint32(msg[off:], ttl-min(ttl, seconds))
	}
	return buf
}

// flagAD is the AD flag in the fourth octet of a message.
const flagAD = 1 << 5

// age returns the age of the answer. now may have been read before the answer came.
func (a *Answer) age(now time.Time) time.Duration { return max(0, now.Sub(a.born)) }

func (a *Answer) staleAt(age time.Duration) bool { return a.ttl > 0 && age >= a.ttl }

// RCode returns the response code.
func (a *Answer) RCode() int { return a.rcode }

// Counts returns the number of records in the answer and authority sections.
func (a *Answer) Counts() (answers, authority int) {
	return int(binary.BigEndian.Uint16(a.message[6:])), int(binary.BigEndian.Uint16(a.message[8:]))
}

// Stale reports whether the lifetime of the answer is over.
func (a *Answer) Stale(now time.Time) bool { return a.staleAt(a.age(now)) }

// fresh reports whether the answer, or the failure, can be given without asking upstreams.
func (a *Answer) fresh(now time.Time) bool { return a.age(now) < a.ttl }

// usable reports whether this is an answer, perhaps a stale one, that is better than none.
func (a *Answer) usable(now time.Time, stale time.Duration) bool {
	return a.failure == nil && a.rcode != dns.RcodeServerFailure && a.age(now) < a.ttl+stale
}

// cost returns the memory the answer takes in octets, including what is lost to rounding.
func (a *Answer) cost() int64 {
	n := answerOverhead + len(a.message) + 2*len(a.ttls)
	for i := range a.aliases {
		n += aliasOverhead + len(a.aliases[i].Name)
	}
	if a.Info != nil {
		n += 32 + len(a.Info.Text)
	}
	if a.failure != nil {
		n += failureOverhead
	}
	return int64(n + n/8)
}
