package report

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/follow"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/fault"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/watched"
)

// Name is the reconciler's name in its status records. It is not "dns", the name of the reconciler that calls a webhook for DNS rules:
// there may be both.
const Name = "dnsagent"

// maxBatch is the maximum number of status records in one transaction. A transaction takes no more records once their size exceeds
// maxBytes. etcd accepts 128 operations and 1.5 MiB.
const (
	maxBatch = 100
	maxBytes = 512 << 10
)

// The bounds of the time between two attempts while etcd does not answer.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// Reporter writes status records while this process is the leader.
type Reporter struct {
	feed     *follow.Feed
	mirror   *watched.Mirror
	store    *etcd.Store
	statuses *watched.Collection[state.Status]
	log      *slog.Logger
	pending  prometheus.Gauge

	mu   sync.Mutex
	todo map[string]struct{} // app instances; nil while another process leads
	wake chan struct{}
}

// New returns a Reporter that observes the feed. It adds a collection to the mirror.
func New(feed *follow.Feed, m *watched.Mirror, store *etcd.Store, log *slog.Logger, reg prometheus.Registerer) *Reporter {
	r := &Reporter{
		feed: feed, mirror: m, store: store, log: log, wake: make(chan struct{}, 1),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mep_dns_reports_pending", Help: "App instances of whose DNS rules is not recorded yet what is being answered.",
		}),
		statuses: watched.Add(m, "dns_status", state.StatusKey(Name, ""), func(_ string, value []byte, _ int64) (state.Status, error) {
			return state.Decode[state.Status](value)
		}),
	}
	if reg != nil {
		reg.MustRegister(r.pending)
	}
	feed.Observe(func(app string) { r.mark(app) })
	return r
}

func (r *Reporter) mark(apps ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.todo == nil {
		return
	}
	for _, app := range apps {
		r.todo[app] = struct{}{}
	}
	r.pending.Set(float64(len(r.todo)))
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take removes up to maxBatch app instances from todo and returns them.
func (r *Reporter) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	apps := make([]string, 0, min(len(r.todo), maxBatch))
	for app := range r.todo {
		if len(apps) == maxBatch {
			break
		}
		apps = append(apps, app)
		delete(r.todo, app)
	}
	r.pending.Set(float64(len(r.todo)))
	return apps
}

// Run reports for one term of leadership. It returns nil when ctx ends, or when a successor turns out to have taken over.
func (r *Reporter) Run(ctx context.Context, term leader.Term) error {
	r.mu.Lock()
	r.todo = make(map[string]struct{})
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.todo = nil
		r.pending.Set(0)
		r.mu.Unlock()
	}()
	// If somebody else writes a status record, compare it with the actual state.
	_, stop := r.statuses.Observe(func(c watched.Change[state.Status]) { r.mark(appOf(c.Key)) })
	defer stop()
	if err := r.feed.CatchUp(ctx, r.mirror.Revision()); err != nil {
		return nil //nolint:nilerr // the term is over
	}
	r.mark(r.feed.Apps()...)
	for item := range r.statuses.Snapshot().All() {
		r.mark(appOf(item.Key))
	}
	for wait := time.Duration(0); ; {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil
		}
		for apps := r.take(); len(apps) > 0 && ctx.Err() == nil; apps = r.take() {
			err := r.write(ctx, term, apps)
			if errors.Is(err, errSucceeded) {
				return nil
			}
			if err == nil {
				wait = 0
				continue
			}
			if wait == 0 && ctx.Err() == nil {
				r.log.Warn("what is answered of DNS rules cannot be recorded at present, trying again", "error", err)
			}
			r.mark(apps...)
			wait = min(max(2*wait, minBackoff), maxBackoff)
			select {
			case <-time.After(wait + rand.N(wait)):
			case <-ctx.Done():
			}
		}
	}
}

func appOf(key string) string { return strings.TrimPrefix(key, state.StatusKey(Name, "")) }

// errSucceeded is returned when another process leads.
var errSucceeded = errors.New("this process no longer leads")

// write updates the status records of some app instances, and waits until this process reads what it wrote.
func (r *Reporter) write(ctx context.Context, term leader.Term, apps []string) error {
	var ops []clientv3.Op
	urgent, bytes := true, 0
	snapshot := r.statuses.Snapshot()
	for i, app := range apps {
		if bytes > maxBytes {
			r.mark(apps[i:]...)
			break
		}
		key := state.StatusKey(Name, app)
		item, recorded := snapshot.Get(key)
		served := r.feed.Served(app)
		if served == nil || served.Generation == 0 { // no rules, or none were ever in force
			if recorded {
				ops = append(ops, clientv3.OpDelete(key))
			}
			continue
		}
		status := statusOf(served)
		if recorded && same(&item.Value, status) {
			continue
		}
		status.Reported = time.Now().UTC()
		value, err := state.Encode(*status)
		if err != nil {
			return err
		}
		ops = append(ops, clientv3.OpPut(key, value))
		bytes += len(value)
		urgent = urgent && len(status.Applied)+len(status.Failed) == 0
	}
	if len(ops) == 0 {
		return nil
	}
	store := r.store
	if urgent {
		store = store.Urgent() // terminations of app instances wait for it, and they free space
	}
	fault.Point("dns.reporting")
	resp, err := store.Txn(ctx, term.Fence(), ops, nil)
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return errSucceeded
	}
	fault.Point("dns.reported")
	return r.mirror.WaitRevision(ctx, resp.Header.Revision)
}

func statusOf(s *follow.Served) *state.Status {
	applied := slices.Sorted(slices.Values(s.Applied))
	return &state.Status{Version: state.Current(), Generation: s.Generation, Applied: applied, Failed: s.Failed}
}

// same reports whether two statuses agree on the generation and the rules.
func same(a, b *state.Status) bool {
	return a.Generation == b.Generation && slices.Equal(a.Applied, b.Applied) && maps.Equal(a.Failed, b.Failed)
}
