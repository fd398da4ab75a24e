package extauth

import (
	"context"
	"crypto/sha256"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// maxDecisions is the maximum number of cached decisions per policy, maxRemembered their maximum total size in bytes.
	maxDecisions  = 4096
	maxRemembered = 4 << 20
	overhead      = 256 // of a decision, in addition to its body and header
)

// key identifies a question. It is a hash, so that no header field of a caller is kept.
type key [sha256.Size]byte

// memory caches decisions, and lets concurrent equal questions share one request.
type memory struct {
	lifetime time.Duration

	mu      sync.Mutex
	known   *simplelru.LRU[key, *remembered]
	size    int
	flights map[key]*flight
}

type remembered struct {
	decision *Decision
	until    time.Time
	size     int
}

// flight is a question in flight.
type flight struct {
	cancel  context.CancelFunc
	waiting int // number of callers; the last one to leave cancels the question
	done    chan struct{}

	decision *Decision // valid once done is closed
	err      error
}

func newMemory(lifetime time.Duration) *memory {
	m := &memory{lifetime: lifetime, flights: make(map[key]*flight)}
	m.known, _ = simplelru.NewLRU(maxDecisions, func(_ key, e *remembered) { m.size -= e.size }) // fails only for sizes below 1
	return m
}

// get returns the decision about a question, and whether it came from the cache or from the request of another caller.
func (m *memory) get(ctx context.Context, question []byte, ask func(context.Context) (*Decision, error)) (d *Decision, known bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	k := key(sha256.Sum256(question))
	m.mu.Lock()
	if e, ok := m.known.Get(k); ok {
		if time.Now().Before(e.until) {
			m.mu.Unlock()
			return e.decision, true, nil
		}
		m.known.Remove(k)
	}
	f, joined := m.flights[k]
	if !joined {
		f = m.start(ctx, k, ask)
	}
	f.waiting++
	m.mu.Unlock()

	if err := m.wait(ctx, k, f); err != nil {
		return nil, false, err
	}
	if joined && f.err == nil && f.decision.lifetime == 0 {
		// The response must not be cached: it is for the caller that asked only.
		d, err = ask(ctx)
		return d, false, err
	}
	return f.decision, joined, f.err
}

// start asks the question on behalf of all callers that wait, for as long as there is one. The caller must hold m.mu.
func (m *memory) start(ctx context.Context, k key, ask func(context.Context) (*Decision, error)) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{cancel: cancel, done: make(chan struct{})}
	m.flights[k] = f
	go func() {
		defer cancel()
		d, err := ask(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		f.decision, f.err = d, err
		if m.flights[k] == f {
			delete(m.flights, k)
		}
		if err == nil {
			m.put(k, d)
		}
		close(f.done)
	}()
	return f
}

// wait waits for the decision. The last caller to go away cancels the question and waits for its end.
func (m *memory) wait(ctx context.Context, k key, f *flight) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	f.waiting--
	last := f.waiting == 0
	if last && m.flights[k] == f {
		delete(m.flights, k) // later callers ask again
	}
	m.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
	return ctx.Err()
}

// put caches a decision for as long as both the policy and the response allow. The caller must hold m.mu.
func (m *memory) put(k key, d *Decision) {
	lifetime := min(m.lifetime, d.lifetime)
	if lifetime <= 0 {
		return
	}
	e := &remembered{decision: d, until: time.Now().Add(lifetime), size: overhead + len(d.Body)}
	for name, values := range d.Header {
		for _, value := range values {
			e.size += len(name) + len(value)
		}
	}
	m.known.Remove(k)
	m.known.Add(k, e)
	m.size += e.size
	for m.size > maxRemembered {
		m.known.RemoveOldest()
	}
}

// lifetime returns how long a response says that it may be cached (RFC 9111 5.2.2); the maximum if it says nothing.
func lifetime(header http.Header) time.Duration {
	longest := time.Duration(math.MaxInt64)
	for _, line := range header["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
			switch name {
			case "no-store", "no-cache":
				return 0
			case "max-age":
				seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
				if err != nil {
					return 0
				}
				longest = min(longest, time.Duration(seconds)*time.Second)
			}
		}
	}
	return longest
}
