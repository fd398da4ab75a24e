package identity

import (
	"sync"
	"sync/atomic"
	"time"
)

// cache remembers verified tokens. It holds at most max of them; what makes room when it is full is what has expired, else
// whatever comes first, in no order an attacker could choose.
type cache struct {
	max   int64
	size  atomic.Int64
	known sync.Map // token → *verified

	sweeping sync.Mutex
}

func newCache(entries int) *cache { return &cache{max: int64(entries)} }

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
	if c.size.Add(1) > c.max {
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
	if c.size.Load() <= c.max {
		return
	}
	target := c.max - c.max/16
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
