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
	// staleTTL is the TTL of the records of an answer past its time (RFC 8767 4).
	staleTTL = 30
	// failureTTL is how long it is remembered that a question was not answered (RFC 9520 3.2).
	failureTTL = time.Second
	// answerOverhead is the size of an Answer besides what its slices hold.
	answerOverhead = 224
	// aliasOverhead is the size of an Alias besides its name.
	aliasOverhead = 48
	// failureOverhead is the size of a Failure with all its errors.
	failureOverhead = 512
)

// Info is what an upstream said about its answer (RFC 8914).
type Info struct {
	// Code is the INFO-CODE.
	Code uint16
	// Text is the EXTRA-TEXT, at most 128 octets.
	Text string
}

// Answer is an upstream's answer to a question. It does not change.
type Answer struct {
	// AD is the flag of the header: the upstream vouches for the data (RFC 6840 5.8).
	AD bool
	// Upstream is who gave the answer, for people.
	Upstream string
	// Info is what the upstream said about it; nil for nothing.
	Info *Info

	message []byte   // packed, without OPT
	ttls    []uint16 // where in it the TTLs are
	rcode   int
	born    time.Time
	ttl     time.Duration // how long it is good; 0: just for those who wait for it
	failure *Failure      // set when there is no answer; this then just says that there was none
	aliases []Alias

	hits       atomic.Uint32 // up to prefetchHits
	refreshing atomic.Bool   // its successor has been asked for
	apart      atomic.Uint64 // a generation of what the server knows by itself
	recheck    atomic.Int64  // up to which age, in nanoseconds, it is served past its time without asking upstreams
}

// newAnswer packs a response of which all that is left may be kept. Its first question is the question.
func newAnswer(msg *dns.Msg, born time.Time, ttl time.Duration) (*Answer, error) {
	packed, err := msg.Pack()
	if err != nil {
		return nil, err
	}
	if len(packed) > dns.MaxMsgSize {
		return nil, dns.ErrBuf
	}
	// The library reads records whose data ends early, and writes names that are missing then as nothing at all.
	if err := new(dns.Msg).Unpack(packed); err != nil {
		return nil, err
	}
	a := &Answer{AD: msg.AuthenticatedData, rcode: msg.Rcode, born: born, ttl: ttl}
	a.message = make([]byte, len(packed)) // what Pack returns has room for everything uncompressed
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

// skipName returns where a name ends in a message that was packed here.
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

// Len is the number of octets that Append appends.
func (a *Answer) Len() int { return len(a.message) }

// Append appends the answer as a message: the header with id 0, QR, AD, the response code and the counts; the question in lower case,
// not compressed; answers and authority. There is no OPT record. Names in the records may refer to the question, so that they have
// its case when the caller writes that of the client over it. TTLs are what is left of them; those of an answer past its time are
// 30 s (RFC 8767 4), and AD is clear then. It does not allocate when buf has room.
func (a *Answer) Append(buf []byte, now time.Time) []byte {
	return a.append(buf, now, len(a.message), a.ttls)
}

// AppendUntil does what Append does with the records that lead to an alias of the answer, and nothing behind them. The counts of the
// header are those of the whole answer.
func (a *Answer) AppendUntil(buf []byte, now time.Time, alias *Alias) []byte {
	return a.append(buf, now, alias.end, a.ttls[:alias.Records])
}

// append appends the message up to end, in which the TTLs are at the places given.
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

// flagAD is in the fourth octet of a message.
const flagAD = 1 << 5

// age is how old the answer is. Time may have been taken before the answer came.
func (a *Answer) age(now time.Time) time.Duration { return max(0, now.Sub(a.born)) }

func (a *Answer) staleAt(age time.Duration) bool { return a.ttl > 0 && age >= a.ttl }

// RCode is the response code.
func (a *Answer) RCode() int { return a.rcode }

// Counts is how many records are in the sections of answers and authority.
func (a *Answer) Counts() (answers, authority int) {
	return int(binary.BigEndian.Uint16(a.message[6:])), int(binary.BigEndian.Uint16(a.message[8:]))
}

// Stale reports whether the answer is past its time.
func (a *Answer) Stale(now time.Time) bool { return a.staleAt(a.age(now)) }

// fresh reports whether the answer, or the failure, can be given without asking anybody.
func (a *Answer) fresh(now time.Time) bool { return a.age(now) < a.ttl }

// usable reports whether it is an answer that is better than none.
func (a *Answer) usable(now time.Time, stale time.Duration) bool {
	return a.failure == nil && a.rcode != dns.RcodeServerFailure && a.age(now) < a.ttl+stale
}

// cost is the memory taken in octets, with what is lost to rounding.
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
