// Package limit limits the rate of callers, with memory that does not grow with their number: the keys it counts by come
// from strangers.
package limit

import (
	"hash/maphash"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// DefaultKeys is the default number of keys remembered.
const DefaultKeys = 16384

// maxRetry bounds the wait that is advised: a rate of one a year is no reason to send a client away for a year.
const maxRetry = time.Hour

// farFuture keeps durations for tiny rates from overflowing.
const farFuture = 100 * 365 * 24 * time.Hour

// Config holds the settings of a limiter.
type Config struct {
	// Rate is how many requests a second each key may make in the long run. 0 or less turns the limiter off.
	Rate float64
	// Burst is how many requests a key may make at once after a pause; less than 1 means 1.
	Burst int
	// Keys is how many keys are remembered; 0 or less means DefaultKeys.
	Keys int
}

// Limiter is a token bucket for each key.
//
// It remembers the Keys used last, in less than 256 bytes each whatever their length: 4 MiB with DefaultKeys, which a test
// measures as the growth of the heap after a million distinct keys.
//
// A client that can make up keys can have others evicted: Keys requests with new keys displace everything not used
// meanwhile. If an evicted key came back to a full bucket, it could be used Burst times for every Keys requests. Therefore a
// new key finds no more in its bucket than the emptiest of the evicted buckets would hold by now, but at least one token, so
// that nobody is locked out: what the flood buys is one request for Keys others. It costs keys that are new while it lasts
// their first burst, not their rate, and remembered keys nothing. A bucket that was full again when evicted, as all are
// without a flood, affects nobody.
type Limiter struct {
	seed maphash.Seed
	keys int

	mu      sync.Mutex
	limit   rate.Limit // 0 means off
	burst   int
	buckets *simplelru.LRU[uint64, bucket]
	debt    time.Time // when every evicted bucket would be full
}

// bucket holds the tokens of one key.
type bucket struct {
	tokens *rate.Limiter
	debt   time.Time // of the limiter when the bucket was made: until then tokens are missing that the key did not use
}

// New returns a limiter.
func New(cfg Config) *Limiter {
	l := &Limiter{seed: maphash.MakeSeed(), keys: cfg.Keys}
	if l.keys <= 0 {
		l.keys = DefaultKeys
	}
	l.buckets, _ = simplelru.NewLRU[uint64, bucket](l.keys, nil) // fails only for sizes below 1
	l.Set(cfg.Rate, cfg.Burst)
	return l
}

// Set changes the rate and the burst, with the meaning they have in Config, also for the keys already known.
func (l *Limiter) Set(perSecond float64, burst int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.burst = max(burst, 1)
	if !(perSecond > 0) || perSecond >= float64(rate.Inf) { // also if it is NaN
		l.limit, l.debt = 0, time.Time{}
		l.buckets.Purge()
		return
	}
	l.limit = rate.Limit(perSecond)
	now := time.Now()
	for _, b := range l.buckets.Values() {
		b.tokens.SetLimitAt(now, l.limit)
		b.tokens.SetBurstAt(now, l.burst)
	}
}

// Allow takes a token of the key. If there is none, it returns how long until there is one, at most an hour.
func (l *Limiter) Allow(key string) (ok bool, retryAfter time.Duration) {
	// Buckets are found by a hash with a secret seed: a long key costs no more memory than a short one, and a client cannot
	// choose keys that share a bucket.
	id := maphash.String(l.seed, key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit == 0 {
		return true, 0
	}
	now := time.Now()
	b, known := l.buckets.Get(id)
	if !known {
		b = l.newBucket(now)
		l.buckets.Add(id, b)
	}
	if b.tokens.AllowN(now, 1) {
		return true, 0
	}
	return false, min(l.timeFor(1-b.tokens.TokensAt(now)), maxRetry)
}

// newBucket returns a bucket, for which it may evict another.
func (l *Limiter) newBucket(now time.Time) bucket {
	if l.buckets.Len() >= l.keys {
		_, old, _ := l.buckets.RemoveOldest()
		used := l.timeFor(float64(l.burst)-old.tokens.TokensAt(now)) - max(0, old.debt.Sub(now))
		if full := now.Add(used); used > 0 && full.After(l.debt) {
			l.debt = full
		}
	}
	b := bucket{tokens: rate.NewLimiter(l.limit, l.burst)}
	if owed := l.debt.Sub(now); owed > 0 {
		b.debt = l.debt
		lacking := math.Ceil(owed.Seconds() * float64(l.limit))
		b.tokens.AllowN(now, int(min(lacking, float64(l.burst-1))))
	}
	return b
}

// timeFor returns how long it takes for so many tokens to accumulate.
func (l *Limiter) timeFor(tokens float64) time.Duration {
	nanos := math.Ceil(tokens / float64(l.limit) * float64(time.Second))
	return time.Duration(min(nanos, float64(farFuture)))
}

// Len returns the number of keys remembered.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buckets.Len()
}
