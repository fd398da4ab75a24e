package book

import (
	"sync"

	"github.com/openmep/mep/kit/errs"
)

// room counts records, in total and per consumer, to enforce their limits.
type room struct {
	what      string // the plural of what is counted
	limit     int
	perHolder int // 0 means no limit per holder
	mu        sync.Mutex
	stored    int
	holders   map[string]int
	pending   map[string]string // by key, the holders of records being created that are not counted as stored yet
	ofPending map[string]int
}

func newRoom(what string, limit, perHolder int) *room {
	return &room{
		what: what, limit: limit, perHolder: perHolder, holders: make(map[string]int), pending: make(map[string]string),
		ofPending: make(map[string]int),
	}
}

// claim reserves a place for a new record until release is called. The error is of the kind errs.Forbidden.
func (r *room) claim(holder, key string) (release func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, twice := r.pending[key]; twice {
		return func() {}, nil // only one of them can succeed
	}
	if r.stored+len(r.pending) >= r.limit {
		return nil, errs.New(errs.Forbidden, "the gateway has room for %d %s and has %d: remove some first", r.limit, r.what, r.stored)
	}
	if n := r.holders[holder]; r.perHolder > 0 && n+r.ofPending[holder] >= r.perHolder {
		return nil, errs.New(errs.Forbidden, "a consumer may have %d %s and this one has %d: remove some first", r.perHolder, r.what, n)
	}
	r.pending[key] = holder
	r.ofPending[holder]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.settle(key)
	}, nil
}

// settle ends a claim.
func (r *room) settle(key string) {
	holder, ok := r.pending[key]
	if !ok {
		return
	}
	delete(r.pending, key)
	if r.ofPending[holder]--; r.ofPending[holder] == 0 {
		delete(r.ofPending, holder)
	}
}

// added counts a record that was stored.
func (r *room) added(holder, key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle(key)
	r.stored++
	r.holders[holder]++
}

// removed uncounts a record that is no longer stored.
func (r *room) removed(holder string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stored--
	if r.holders[holder]--; r.holders[holder] == 0 {
		delete(r.holders, holder)
	}
}
