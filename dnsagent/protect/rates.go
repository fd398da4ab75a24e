package protect

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"math"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is the kind of a response. It determines which responses count as the same.
type Kind uint8

// The kinds.
const (
	// Answers are responses with records, distinguished by type and by name, or by wildcard if they were synthesised from one.
	Answers Kind = iota
	// Negatives are responses that a name, or its records of a type, do not exist, distinguished by zone: there is no end of names
	// that do not exist.
	Negatives
	// Errors are all other responses; all of them count as the same.
	Errors

	kinds = iota
	total = Kind(kinds) // all responses together
)

// Action is what to do with a response.
type Action uint8

// The actions.
const (
	// Send means that the response is within its limit.
	Send Action = iota
	// Drop means that the response is not sent.
	Drop
	// Truncate means that only the header and the question are sent, with TC set: a genuine client asks again over TCP.
	Truncate
)

// RatesConfig holds the settings of Rates. Rates are responses per second to one client prefix.
type RatesConfig struct {
	// PerSecond is how often the same answer may be sent. 0 or less means no limit.
	PerSecond float64
	// Negatives and Errors are the same for those kinds. 0 means PerSecond, less than 0 means no limit.
	Negatives, Errors float64
	// All is how many responses of any kind may be sent; those beyond are dropped, never truncated. 0 or less means no limit.
	All float64
	// Window limits how far an account may be overdrawn: to what it earns in that time. After a flood, nothing is sent for about
	// as long. 1 s to 1 h; default 15 s.
	Window time.Duration
	// Slip says which of the responses over their limit are truncated rather than dropped: 2 every second one, 1 all, 0 none.
	Slip int
	// IPv4Prefix and IPv6Prefix are the lengths of the prefixes that count as one client; default 24 and 56.
	IPv4Prefix, IPv6Prefix int
	// Entries is the number of accounts, of 16 octets each, rounded up to a power of two; default 65,536, at most 16,777,216.
	Entries int
}

const (
	defaultWindow  = 15 * time.Second
	defaultEntries = 1 << 16
	maxEntries     = 1 << 24
	defaultIPv4    = 24
	defaultIPv6    = 56
)

// Rates limits responses over UDP as the response rate limiting of BIND does, so that an attacker who forges a victim's address
// cannot make the server flood it.
//
// Each response to each prefix has an account that earns its rate, and holds what it earns in a second, or one response if that is
// more. Every response is debited, even if not sent; none is sent that overdraws the account. So the first of a flood pass, and
// the others do not before it ends: in any time t no more than rate × (t + 1 s), or rate × t + 1 if that is more.
//
// Accounts are found by a hash with a secret seed in two tables of fixed size. They are never discarded: asking for many names, or
// forging many addresses, clears nobody's debts. Instead accounts are shared, and those who share one pay for each other.
// Therefore each response has an account in both tables, with different neighbours, and is over its limit only if it overdraws
// both. An account is overdrawn at least as far as it would be by any one of those who share it.
//
// A nil Rates limits nothing. New settings need new Rates.
type Rates struct {
	began    time.Time
	seed     maphash.Seed
	prefix4  int
	prefix6  int
	slip     uint32
	overdraw int64 // nanoseconds
	costs    [kinds + 1]cost
	tables   [2][]atomic.Int64 // the time at which each account is full, in nanoseconds since began
	mask     uint64
	stripes  [stripes]stripe
}

// cost is the price of one response, and the most an account holds, in the nanoseconds it takes to earn them. 0 means no limit.
type cost struct{ one, most int64 }

// stripes is the number of responses that can be debited concurrently.
const stripes = 64

// stripe is locked while both accounts of a response are debited. Otherwise each of two concurrent responses could find the last
// credit, one in the first table and one in the second.
type stripe struct {
	mu sync.Mutex
	// over counts the responses over their limit.
	over uint32
	_    [48]byte // keeps the next stripe in another cache line
}

// NewRates returns Rates with the given settings, or nil if they limit nothing. A setting out of range is an error.
func NewRates(cfg RatesConfig) (*Rates, error) {
	for _, rate := range []*float64{&cfg.Negatives, &cfg.Errors} {
		if *rate == 0 {
			*rate = cfg.PerSecond
		}
	}
	if cfg.Window == 0 {
		cfg.Window = defaultWindow
	}
	for setting, value := range map[*int]int{&cfg.IPv4Prefix: defaultIPv4, &cfg.IPv6Prefix: defaultIPv6, &cfg.Entries: defaultEntries} {
		if *setting == 0 {
			*setting = value
		}
	}
	switch {
	case cfg.Window < time.Second || cfg.Window > time.Hour:
		return nil, errors.New("the window of rate limiting has to be from 1 s to 1 h")
	case cfg.Slip < 0 || cfg.Slip > math.MaxInt32:
		return nil, errors.New("the slip of rate limiting cannot be less than 0")
	case cfg.IPv4Prefix < 1 || cfg.IPv4Prefix > 32 || cfg.IPv6Prefix < 1 || cfg.IPv6Prefix > 128:
		return nil, errors.New("the prefixes of rate limiting have to be from 1 to 32 bits, for IPv6 to 128")
	case cfg.Entries < 1 || cfg.Entries > maxEntries:
		return nil, errors.New("the accounts of rate limiting have to be from 1 to 16,777,216")
	}
	r := &Rates{
		began: time.Now(), seed: maphash.MakeSeed(), prefix4: cfg.IPv4Prefix, prefix6: cfg.IPv6Prefix, slip: uint32(cfg.Slip),
	}
	for kind, rate := range [kinds + 1]float64{cfg.PerSecond, cfg.Negatives, cfg.Errors, cfg.All} {
		if rate > 0 {
			one := min(max(float64(time.Second)/rate, 1), float64(time.Hour)) // so that sums do not overflow
			r.costs[kind] = cost{int64(one), max(int64(one), int64(time.Second))}
			// The same for all kinds, or one kind would forgive the debts of another that shares its account.
			r.overdraw = max(r.overdraw, r.costs[kind].most+int64(cfg.Window))
		}
	}
	if r.overdraw == 0 {
		return nil, nil
	}
	size := 1 << bits.Len(uint(cfg.Entries-1))
	r.mask = uint64(size - 1) //nolint:gosec // at most maxEntries
	for i := range r.tables {
		r.tables[i] = make([]atomic.Int64, size)
	}
	return r, nil
}

// Allow returns what to do with a response to a client. nameHash is of what distinguishes it from others of its kind.
func (r *Rates) Allow(client netip.Addr, kind Kind, nameHash uint64, now time.Time) Action {
	if r == nil {
		return Send
	}
	if kind == Errors {
		nameHash = 0
	}
	at := max(int64(now.Sub(r.began)), 0)
	prefix := r.prefix(client)
	if over := r.debit(r.hash(&prefix, kind, nameHash), kind, at); over > 0 {
		if r.slip > 0 && over%r.slip == 0 {
			return Truncate
		}
		return Drop
	}
	// Responses not sent do not count towards the total, or a flood of one answer would keep all others from its prefix.
	if r.debit(r.hash(&prefix, total, 0), total, at) > 0 {
		return Drop
	}
	return Send
}

// prefix returns the prefix that counts as one client.
func (r *Rates) prefix(client netip.Addr) [16]byte {
	client = client.Unmap()
	length := r.prefix6
	if client.Is4() {
		length = r.prefix4
	}
	p, _ := client.Prefix(length) // fails only for invalid lengths
	return p.Addr().As16()
}

func (r *Rates) hash(prefix *[16]byte, kind Kind, nameHash uint64) uint64 {
	var key [16 + 8 + 1]byte
	copy(key[:], prefix[:])
	binary.LittleEndian.PutUint64(key[16:], nameHash)
	key[24] = byte(kind)
	return maphash.Bytes(r.seed, key[:])
}

// debit debits both accounts of a response. It returns 0 if either had enough, otherwise how many responses of its stripe were
// over their limit so far.
func (r *Rates) debit(hash uint64, kind Kind, at int64) uint32 {
	c := r.costs[kind]
	if c.one == 0 {
		return 0
	}
	s := &r.stripes[hash>>58]
	s.mu.Lock()
	defer s.mu.Unlock()
	first := r.debitOne(&r.tables[0][hash&r.mask], c, at)
	second := r.debitOne(&r.tables[1][hash>>32&r.mask], c, at)
	if first || second {
		return 0
	}
	s.over = max(s.over+1, 1)
	return s.over
}

// debitOne debits an account and reports whether it had enough. Responses of other stripes may debit it concurrently.
func (r *Rates) debitOne(account *atomic.Int64, c cost, at int64) bool {
	for {
		was := account.Load()
		is := min(max(was, at)+c.one, at+r.overdraw)
		if account.CompareAndSwap(was, is) {
			return is-at <= c.most
		}
	}
}
