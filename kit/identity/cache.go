package identity

import (
	"sync"
	"sync/atomic"
	"time"
)

// cache remembers verified tokens. It holds at most max of them; what makes room when it is full is what has expired, else
// whatever comes first, in no order an attacker could choose.
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

// resize changes how many tokens are remembered. Of those that are, only as many go as there is no room for, and a few more.
func (c *cache) resize(entries int) {
	c.max.Store(int64(entries))
	if c.size.Load() > int64(entries) {
		c.sweep()
	}
}

// keep forgets what a function does not hold of.
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
