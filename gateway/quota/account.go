package quota

import (
	"container/list"
	"hash/maphash"
	"strings"
	"sync"
)

// pair is whom quotas are counted for.
type pair struct{ route, consumer string }

// account is the quotas of a pair.
type account struct {
	pair pair

	mu      sync.Mutex
	windows [kinds]*window
	gone    bool // forgotten: another account may have been made for the pair
}

// shards is how many locks the accounts are spread over; a power of two.
const shards = 64

// accounts are those used last, at most so many in each shard.
type accounts struct {
	seed    maphash.Seed
	dropped func(*account) // is told of those that made room for others
	all     [shards]shard
}

type shard struct {
	mu    sync.Mutex
	most  int
	known map[pair]*list.Element // of *account
	order *list.List             // those used last are in front
	_     [64]byte               // the locks of shards do not share a cache line
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

// find returns the account of a pair, and the one that had to make room for it.
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
	// What the strings are parts of, such as a token, is not to be kept.
	a = &account{pair: pair{strings.Clone(p.route), strings.Clone(p.consumer)}}
	s.known[a.pair] = s.order.PushFront(a)
	return a, dropped
}

// forget removes an account. The locks of the shard and the account are held.
func (s *shard) forget(e *list.Element) {
	a := e.Value.(*account)
	s.order.Remove(e)
	delete(s.known, a.pair)
	a.gone = true
}

// each calls f for every account, locked; those it returns false for are forgotten.
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
