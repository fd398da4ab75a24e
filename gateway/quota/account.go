package quota

import (
	"container/list"
	"hash/maphash"
	"strings"
	"sync"
)

// pair identifies a consumer on a route. Quotas are counted per pair.
type pair struct{ route, consumer string }

// account holds the quotas of a pair.
type account struct {
	pair pair

	mu      sync.Mutex
	windows [kinds]*window
	gone    bool // forgotten: the pair may have another account by now
}

// shards is the number of locks the accounts are spread over; a power of two.
const shards = 64

// accounts holds the most recently used accounts, a limited number per shard.
type accounts struct {
	seed    maphash.Seed
	dropped func(*account) // called with each account evicted to make room
	all     [shards]shard
}

type shard struct {
	mu    sync.Mutex
	most  int
	known map[pair]*list.Element // of *account
	order *list.List             // most recently used first
	_     [64]byte               // keeps the locks of shards on separate cache lines
}

func newAccounts(keys int, dropped func(*account)) *accounts {
	a := &accounts{seed: maphash.MakeSeed(), dropped: dropped}
	for i := range a.all {
		a.all[i].most = max(1, keys/shards)
		a.all[i].known = make(map[pair]*list.Element)
		a.all[i].order = list.New()
	}
	return a
}

// lock returns the account of a pair, locked.
func (as *accounts) lock(p pair) *account {
	s := &as.all[maphash.Comparable(as.seed, p)%shards]
	for {
		a, dropped := s.find(p)
		if dropped != nil {
			as.dropped(dropped)
		}
		a.mu.Lock()
		if !a.gone {
			return a
		}
		a.mu.Unlock()
	}
}

// find returns the account of a pair, and the account evicted to make room for it, if any.
func (s *shard) find(p pair) (a, dropped *account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.known[p]; ok {
		s.order.MoveToFront(e)
		return e.Value.(*account), nil
	}
	if s.order.Len() >= s.most {
		oldest := s.order.Back()
		dropped = oldest.Value.(*account)
		dropped.mu.Lock()
		s.forget(oldest)
		dropped.mu.Unlock()
	}
	// Clone the strings so as not to retain what they are part of, such as a token.
	a = &account{pair: pair{strings.Clone(p.route), strings.Clone(p.consumer)}}
	s.known[a.pair] = s.order.PushFront(a)
	return a, dropped
}

// forget removes an account. The caller holds the locks of the shard and of the account.
func (s *shard) forget(e *list.Element) {
	a := e.Value.(*account)
	s.order.Remove(e)
	delete(s.known, a.pair)
	a.gone = true
}

// each calls f for every account, locked, and forgets the accounts for which f returns false.
func (as *accounts) each(f func(*account) bool) {
	for i := range as.all {
		s := &as.all[i]
		s.mu.Lock()
		for e := s.order.Back(); e != nil; {
			a, next := e.Value.(*account), e.Prev()
			a.mu.Lock()
			if !f(a) {
				s.forget(e)
			}
			a.mu.Unlock()
			e = next
		}
		s.mu.Unlock()
	}
}

func (as *accounts) len() int {
	n := 0
	for i := range as.all {
		as.all[i].mu.Lock()
		n += as.all[i].order.Len()
		as.all[i].mu.Unlock()
	}
	return n
}
