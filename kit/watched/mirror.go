// Package watched keeps typed, indexed copies of etcd prefixes in memory. Readers use them without a request to etcd.
//
// A [Mirror] lists a root prefix at some revision and follows it from there; every [Collection] added to it holds the records of one
// prefix below the root. All collections of a mirror move through the same revisions together, so one barrier ([Mirror.WaitRevision])
// gives a writer read-your-writes over all of them, and observers see changes in commit order.
//
// Readers get immutable snapshots. While etcd is unavailable they keep getting the last one. When the history that the mirror needs was
// compacted, it lists again and turns the difference into changes.
package watched

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/openmep/mep/kit/etcd"
)

// Config configures a Mirror.
type Config struct {
	// Source is what is listed and watched.
	Source etcd.Source
	// Prefix is the root; it ends in a slash.
	Prefix string
	// SnapshotFile is where the latest state is kept on disk for a start without etcd; empty disables this.
	SnapshotFile string
	// SnapshotDelay is how long to wait for etcd before loading the state on disk; default 1 s. That state may be seconds old, and a
	// process that starts while etcd is healthy should not answer from it.
	SnapshotDelay time.Duration
	// SnapshotInterval is the minimum time between two writes of SnapshotFile; default 5 s.
	SnapshotInterval time.Duration
	// PageSize is the maximum number of keys per list request; default 2000.
	PageSize int64
	// ProbeInterval is how often a silent watch is asked for a sign of life; default 1 s. After five silent intervals the mirror counts
	// as disconnected.
	ProbeInterval time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Registerer registers the metrics; nil leaves them unregistered.
	Registerer prometheus.Registerer
}

// Mirror follows one root prefix of etcd. Use New, add collections, then Run.
type Mirror struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	sources []source // ordered by prefix

	// applying is held while changes are applied, and by Observe.
	applying sync.Mutex
	cluster  uint64
	revision atomic.Int64
	// publications is incremented at the start and at the end of publishing: it is odd in between.
	publications atomic.Uint64
	contact      atomic.Int64 // time of the last sign of life from etcd in Unix nanoseconds, 0 before the first

	ready     chan struct{}
	readyOnce sync.Once
	restored  atomic.Bool // the state is from disk; etcd has not been reached yet
	dirty     atomic.Bool // changed since the last snapshot was written

	waiting sync.Mutex
	waiters map[*waiter]struct{}
	probe   chan struct{}
	cut     chan struct{}
}

type waiter struct {
	revision int64
	reached  chan struct{}
}

// source is what the mirror needs of a collection, independent of its value type.
type source interface {
	prefix() string
	apply(ev event)
	publish(revision int64)
	flush()
	diff(kvs []*mvccpb.KeyValue, earliest int64) []event
	freeze() func(func(record) error) error
}

// event is a change of a key, from a watch or from the difference between two lists.
type event struct {
	key            string
	value          []byte
	deleted        bool
	listed         bool // revision is the earliest possible one
	createRevision int64
	revision       int64
	src            source
}

// New returns a Mirror without collections.
func New(cfg Config) *Mirror {
	if cfg.PageSize <= 0 {
		cfg.PageSize = 2000
	}
	if cfg.ProbeInterval <= 0 {
		cfg.ProbeInterval = time.Second
	}
	if cfg.SnapshotDelay <= 0 {
		cfg.SnapshotDelay = time.Second
	}
	if cfg.SnapshotInterval <= 0 {
		cfg.SnapshotInterval = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	m := &Mirror{
		cfg: cfg, log: cfg.Logger, ready: make(chan struct{}),
		waiters: make(map[*waiter]struct{}), probe: make(chan struct{}, 1), cut: make(chan struct{}, 1),
	}
	m.metrics = newMetrics(m, cfg.Registerer)
	return m
}

func (m *Mirror) add(s source) {
	if !strings.HasPrefix(s.prefix(), m.cfg.Prefix) || !strings.HasSuffix(s.prefix(), "/") {
		panic(fmt.Sprintf("watched: collection %q is not below %q or does not end in a slash", s.prefix(), m.cfg.Prefix))
	}
	m.sources = append(m.sources, s)
	sort.Slice(m.sources, func(i, j int) bool { return m.sources[i].prefix() < m.sources[j].prefix() })
}

// sourcesOf iterates over the collections that hold a key: different parts of the program may use overlapping prefixes.
func (m *Mirror) sourcesOf(key string) iter.Seq[source] {
	return func(yield func(source) bool) {
		for _, s := range m.sources {
			if strings.HasPrefix(key, s.prefix()) && !yield(s) {
				return
			}
		}
	}
}

// Ready returns a channel that is closed once the collections hold a state, from etcd or, failing that, from disk.
func (m *Mirror) Ready() <-chan struct{} { return m.ready }

// PreferDisk makes the mirror load the state on disk at once, for programs that prefer stale answers to none. Call it before Run.
func (m *Mirror) PreferDisk() { m.cfg.SnapshotDelay = 0 }

// Revision returns the etcd revision that all collections have reached.
func (m *Mirror) Revision() int64 { return m.revision.Load() }

// Status describes how well the mirror follows etcd.
type Status struct {
	// Connected says that etcd has recently given a sign of life.
	Connected bool
	// Restored says that the state is from disk and that etcd has not been reached since the start.
	Restored bool
	// Revision is the revision that the collections have reached.
	Revision int64
	// LastContact is the time of the last sign of life, zero if there was none.
	LastContact time.Time
}

// Status returns the current status of the mirror.
func (m *Mirror) Status() Status {
	s := Status{Restored: m.restored.Load(), Revision: m.revision.Load()}
	if c := m.contact.Load(); c != 0 {
		s.LastContact = time.Unix(0, c)
		s.Connected = time.Since(s.LastContact) < 5*m.cfg.ProbeInterval
	}
	return s
}

// WaitRevision waits until the collections have reached the revision. It returns the context's error if that ends first.
func (m *Mirror) WaitRevision(ctx context.Context, revision int64) error {
	if m.revision.Load() >= revision {
		return nil
	}
	w := &waiter{revision: revision, reached: make(chan struct{})}
	m.waiting.Lock()
	m.waiters[w] = struct{}{}
	m.waiting.Unlock()
	defer func() {
		m.waiting.Lock()
		delete(m.waiters, w)
		m.waiting.Unlock()
	}()
	if m.revision.Load() >= revision {
		return nil
	}
	start := time.Now()
	defer func() { m.metrics.barrier.Observe(time.Since(start).Seconds()) }()
	// The revision may be that of a key outside the root, which only a progress report brings here.
	ask := time.NewTimer(20 * time.Millisecond)
	defer ask.Stop()
	for {
		select {
		case <-w.reached:
			return nil
		case <-ask.C:
			select {
			case m.probe <- struct{}{}:
			default:
			}
			ask.Reset(200 * time.Millisecond)
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d (at %d): %w", revision, m.revision.Load(), ctx.Err())
		}
	}
}

// CatchUp is WaitRevision for a writer that is about to respond after a write at the revision. It waits no longer than
// etcd.DefaultTimeout, and its error is of the kind errs.Unavailable.
func (m *Mirror) CatchUp(ctx context.Context, revision int64) error {
	if m.revision.Load() >= revision {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	return etcd.Error(m.WaitRevision(ctx, revision))
}

func (m *Mirror) advance(revision int64) {
	m.revision.Store(revision)
	m.waiting.Lock()
	for w := range m.waiters {
		if w.revision <= revision {
			close(w.reached)
			delete(m.waiters, w)
		}
	}
	m.waiting.Unlock()
}

// Run follows etcd until the context ends, and then returns nil. It never gives up earlier.
func (m *Mirror) Run(ctx context.Context) error {
	away := make(chan struct{})
	unreached := sync.OnceFunc(func() { close(away) })
	var beside sync.WaitGroup
	defer beside.Wait()
	if m.cfg.SnapshotFile != "" {
		beside.Go(func() {
			m.restore(ctx, away)
			m.saveLoop(ctx)
		})
	}
	backoff := 10 * time.Millisecond
	next := int64(0) // the next revision; 0: list before watching
	for ctx.Err() == nil {
		var err error
		listed := next != 0
		if !listed {
			if err = m.list(ctx); err != nil {
				unreached()
			}
			listed = err == nil
		}
		if err == nil {
			backoff = 10 * time.Millisecond
			err = m.watch(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		next = m.revision.Load() + 1
		switch {
		case errors.Is(err, errRelist), !listed:
			next = 0
		case errors.Is(err, rpctypes.ErrCompacted):
			m.log.Warn("history was compacted, listing again", "prefix", m.cfg.Prefix, "revision", m.revision.Load())
			m.metrics.relists.WithLabelValues("compacted").Inc()
			next = 0
			continue
		}
		m.log.Warn("etcd connection interrupted, retrying", "prefix", m.cfg.Prefix, "error", err, "in", backoff)
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, 2*time.Second)
	}
	return nil
}

// list reads the whole prefix at one revision and applies the differences from the current state.
func (m *Mirror) list(ctx context.Context) error {
	var kvs []*mvccpb.KeyValue
	key, end := m.cfg.Prefix, clientv3.GetPrefixRangeEnd(m.cfg.Prefix)
	var revision int64
	var cluster uint64
	for size := newPaging(m.cfg.PageSize); ; {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(size.limit), clientv3.WithRev(revision)}
		page, cancel := context.WithTimeout(ctx, 5*time.Second)
		resp, err := m.cfg.Source.Get(page, key, opts...)
		cancel()
		if status.Code(err) == codes.ResourceExhausted && size.smaller() {
			continue
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", m.cfg.Prefix, err)
		}
		size.adapt(resp.Kvs)
		if revision == 0 {
			revision, cluster = resp.Header.Revision, resp.Header.ClusterId
		}
		kvs = append(kvs, resp.Kvs...)
		if !resp.More || len(resp.Kvs) == 0 {
			break
		}
		key = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	m.alive()

	m.applying.Lock()
	defer m.applying.Unlock()
	if revision < m.revision.Load() {
		m.log.Warn("etcd went back in time, it was probably restored from a backup",
			"revision", revision, "was", m.revision.Load())
	}
	m.cluster = cluster
	byPrefix := make(map[source][]*mvccpb.KeyValue)
	for _, kv := range kvs {
		for s := range m.sourcesOf(string(kv.Key)) {
			byPrefix[s] = append(byPrefix[s], kv)
		}
	}
	var events []event
	for _, s := range m.sources {
		events = append(events, s.diff(byPrefix[s], m.revision.Load()+1)...)
	}
	sort.SliceStable(events, func(i, j int) bool { return events[i].revision < events[j].revision })
	m.restored.Store(false)
	m.commit(events, revision)
	return nil
}

// commit applies events, publishes the new snapshots and wakes the waiters for the revision. The caller holds m.applying.
func (m *Mirror) commit(events []event, revision int64) {
	for _, ev := range events {
		ev.src.apply(ev)
	}
	m.publish(revision)
	// Once per event, so that observers see the events in order, whichever collections they belong to.
	for _, ev := range events {
		ev.src.flush()
	}
	if len(events) > 0 {
		m.dirty.Store(true)
		m.metrics.batch.Observe(float64(len(events)))
	}
	m.advance(revision)
	m.readyOnce.Do(func() { close(m.ready) })
}

// publish replaces the snapshots of all collections. The caller holds m.applying.
func (m *Mirror) publish(revision int64) {
	m.publications.Add(1)
	defer m.publications.Add(1)
	for _, s := range m.sources {
		s.publish(revision)
	}
}

// Together calls read, repeatedly if necessary, until all snapshots that it takes are of one revision: what a transaction wrote to
// several collections is then in all of them or in none. read should only take the snapshots.
func (m *Mirror) Together(read func()) {
	for {
		before := m.publications.Load()
		if before%2 == 0 {
			if read(); m.publications.Load() == before {
				return
			}
		}
		runtime.Gosched()
	}
}

func (m *Mirror) alive() { m.contact.Store(time.Now().UnixNano()) }

// errRelist asks Run to list again.
var errRelist = errors.New("the mirror no longer matches etcd")

// watch applies the changes of the prefix after the present revision until something breaks.
func (m *Mirror) watch(ctx context.Context) error {
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// Start at the present revision, not the next one: etcd reports no progress to a watch that begins in the future.
	ch := m.cfg.Source.Watch(wctx, m.cfg.Prefix, clientv3.WithPrefix(), clientv3.WithRev(max(1, m.revision.Load())),
		clientv3.WithFragment()) // many large changes together may exceed the size of one message
	ticker := time.NewTicker(m.cfg.ProbeInterval)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case resp, ok := <-ch:
			if !ok {
				return errors.New("the watch ended")
			}
			last = time.Now()
			if err := m.receive(resp, ch); err != nil {
				return err
			}
		case <-m.probe:
			m.requestProgress(wctx)
		case <-m.cut:
			return errors.New("the watch was cut")
		case <-ticker.C:
			if time.Since(last) > 30*m.cfg.ProbeInterval {
				return fmt.Errorf("%w: the watch has gone silent", errRelist)
			}
			m.requestProgress(wctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *Mirror) requestProgress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.ProbeInterval)
	defer cancel()
	// A failure shows as silence on the watch.
	_ = m.cfg.Source.RequestProgress(ctx)
}

// receive applies a watch response together with those already queued behind it.
func (m *Mirror) receive(resp clientv3.WatchResponse, ch clientv3.WatchChan) error {
	var events []event
	have := m.revision.Load()
	revision := have
	for more := 0; ; more++ {
		if err := resp.Err(); err != nil {
			return fmt.Errorf("watch %s: %w", m.cfg.Prefix, err)
		}
		if m.cluster != 0 && resp.Header.ClusterId != m.cluster || resp.Header.Revision != 0 && resp.Header.Revision < revision {
			m.metrics.relists.WithLabelValues("other_store").Inc()
			return fmt.Errorf("%w: etcd is at revision %d, this process at %d", errRelist, resp.Header.Revision, revision)
		}
		m.alive()
		for _, ev := range resp.Events {
			if ev.Kv.ModRevision <= have {
				continue
			}
			revision = ev.Kv.ModRevision
			e := event{key: string(ev.Kv.Key), createRevision: ev.Kv.CreateRevision, revision: ev.Kv.ModRevision}
			e.value, e.deleted = ev.Kv.Value, ev.Type == mvccpb.Event_DELETE
			for e.src = range m.sourcesOf(e.key) {
				events = append(events, e)
			}
		}
		// Only a progress report vouches for the revision in its header: a response with events may be one of several.
		if resp.IsProgressNotify() {
			revision = max(revision, resp.Header.Revision)
		}
		if more >= 256 {
			break
		}
		var ok bool
		select {
		case resp, ok = <-ch:
		default:
		}
		if !ok {
			break
		}
	}
	if len(events) == 0 && revision == m.revision.Load() {
		return nil
	}
	m.applying.Lock()
	defer m.applying.Unlock()
	m.commit(events, revision)
	return nil
}

// CutWatch breaks the current watch, as a connection failure would. The mirror resumes by itself.
func (m *Mirror) CutWatch() {
	select {
	case m.cut <- struct{}{}:
	default:
	}
}
