package identity

import (
	"sync"
	"sync/atomic"
	"time"
)

// cache remembers at most max verified tokens. When it is full, expired tokens make room first, then others in an order
// that an attacker cannot choose.
type cache struct {
	max   atomic.Int64
	size  atomic.Int64
	known sync.Map // token → *verified

	sweeping sync.Mutex
}

func newCache(entries int) *cache {
	c := &cache{}
	c.max.Store(int64(entries))
	return c
}

// resize changes how many tokens are remembered. It drops only tokens that there is no room for, and a few more.
func (c *cache) resize(entries int) {
	c.max.Store(int64(entries))
	if c.size.Load() > int64(entries) {
		c.sweep()
	}
}

// keep drops the tokens for which holds returns false.
func (c *cache) keep(holds func(*verified) bool) {
	c.known.Range(func(k, e any) bool {
		if !holds(e.(*verified)) {
			c.drop(k.(string))
		}
		return true
	})
}

func (c *cache) get(token string) *verified {
	if e, ok := c.known.Load(token); ok {
		return e.(*verified)
	}
	return nil
}

func (c *cache) put(token string, e *verified) {
	if _, had := c.known.Swap(token, e); had {
		return
	}
	if c.size.Add(1) > c.max.Load() {
		c.sweep()
	}
}

func (c *cache) drop(token string) {
	if _, had := c.known.LoadAndDelete(token); had {
		c.size.Add(-1)
	}
}

// sweep makes room for a sixteenth of the cache.
func (c *cache) sweep() {
	c.sweeping.Lock()
	defer c.sweeping.Unlock()
	most := c.max.Load()
	if c.size.Load() <= most {
		return
	}
	target := most - most/16
	now := time.Now()
	c.known.Range(func(k, e any) bool {
		if now.After(e.(*verified).until) {
			c.drop(k.(string))
		}
		return true
	})
	c.known.Range(func(k, _ any) bool {
		if c.size.Load() <= target {
			return false
		}
		c.drop(k.(string))
		return true
	})
}
