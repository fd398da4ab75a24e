package quota

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/etcd"
)

const (
	// DefaultKeys is the default number of pairs of route and consumer to remember.
	DefaultKeys = 65536
	// patience is how long a call waits for etcd; transactionTime is how long a transaction may take.
	patience        = 500 * time.Millisecond
	transactionTime = time.Second
)

// Config configures Quotas.
type Config struct {
	// Store is the etcd store that all replicas share.
	Store *etcd.Store
	// Replicas returns the number of replicas of the gateway, including this one; less than 1 counts as 1. It only affects how many calls
	// a replica takes at a time: quotas are exact whatever it returns. nil means 1.
	Replicas func() int
	// Keys is how many pairs of route and consumer are remembered, the most recently used ones, in about a kilobyte each. 0 or less means
	// DefaultKeys.
	Keys int
	// Log receives a message when etcd becomes unavailable and when it is available again.
	Log *slog.Logger
	// Registerer registers the metrics.
	Registerer prometheus.Registerer
}

// Quotas counts calls. See the package documentation for its guarantees.
type Quotas struct {
	store    *etcd.Store
	replicas func() int
	log      *slog.Logger
	metrics  *metrics
	clock    *clock
	accounts *accounts
	leases   *etcd.Leases // in the time of clock
	circuit  circuit
	patience time.Duration
	bound    time.Duration // timeout of a transaction

	// kill cancels alive, which ends transactions in flight. tickets limits how many transactions run at a time; pending counts those
	// that run or wait for a ticket.
	alive   context.Context
	kill    context.CancelFunc
	tickets chan struct{}
	pending atomic.Int64

	mu      sync.Mutex
	closed  bool
	working sync.WaitGroup // transactions; none are added once closed
}

// New returns Quotas. The caller must also call Run.
func New(cfg Config) *Quotas { return newQuotas(cfg, systemTime()) }

func newQuotas(cfg Config, read func() (wall, mono int64)) *Quotas {
	if cfg.Keys <= 0 {
		cfg.Keys = DefaultKeys
	}
	if cfg.Replicas == nil {
		cfg.Replicas = func() int { return 1 }
	}
	q := &Quotas{
		store: cfg.Store.Urgent(), replicas: cfg.Replicas, log: cfg.Log, clock: newClock(read),
		tickets: make(chan struct{}, maxTransactions), patience: patience, bound: transactionTime,
	}
	q.accounts = newAccounts(cfg.Keys, q.dropped)
	q.leases = etcd.NewLeases(q.store, slack)
	q.alive, q.kill = context.WithCancel(context.Background())
	q.metrics = newMetrics(cfg.Registerer, q)
	return q
}

// Take asks for one call of a consumer on a route. All quotas must admit the call; if one refuses, nothing is taken from any of them. If
// several quotas have the same window, the lowest applies. whenAway says what happens if etcd does not answer and no calls are at hand:
// gateway.AwayAllow allows the call, anything else refuses it.
//
// Usually calls are at hand, and Take does not wait. Otherwise it waits for etcd, for half a second at most, and not at all if etcd did
// not answer a moment ago, unless this is the call that finds out whether etcd answers again. If ctx ends, the call is refused.
func (q *Quotas) Take(ctx context.Context, route, consumer string, quotas []gateway.Quota, whenAway string) Verdict {
	if len(quotas) == 0 {
		return Verdict{Allowed: true}
	}
	var limits [kinds]int64
	for i := range quotas {
		k, calls := kindOf(quotas[i].Per), quotas[i].Calls
		if calls < 1 {
			calls = -1 // 0 is the mark of a window without a quota
		}
		if limits[k] == 0 || calls < limits[k] {
			limits[k] = calls
		}
	}
	var v Verdict
	p := pair{route, consumer}
	wait, done := q.try(p, &limits, &v)
	if !done {
		q.wait(ctx, p, &limits, wait, &v)
		if v.Away && ctx.Err() == nil {
			v.Allowed = whenAway == gateway.AwayAllow
			q.metrics.away(v.Allowed)
		}
	}
	if !v.Allowed && !v.Away {
		q.metrics.refused[kindOf(v.Per)].Inc()
	}
	return v
}

// wait calls try until there is a verdict, each time after the transaction it waits for has ended.
func (q *Quotas) wait(ctx context.Context, p pair, limits *[kinds]int64, busy <-chan struct{}, v *Verdict) {
	began := time.Now()
	defer func() { q.metrics.waits.Observe(time.Since(began).Seconds()) }()
	timer := time.NewTimer(q.patience)
	defer timer.Stop()
	for done := false; !done; {
		if busy == nil {
			v.Away = true
			return
		}
		select {
		case <-busy:
		case <-timer.C:
			v.Away = true
			return
		case <-ctx.Done():
			v.Away = true
			return
		}
		busy, done = q.try(p, limits, v)
	}
}

// try decides about a call if it can. Otherwise it returns a channel that is closed when a retry may help; nil if etcd is unavailable.
func (q *Quotas) try(p pair, limits *[kinds]int64, v *Verdict) (busy <-chan struct{}, done bool) {
	a := q.accounts.lock(p)
	defer a.mu.Unlock()
	now, mono := q.clock.now()
	*v = Verdict{}
	refused, lacking := false, false
	for k, limit := range limits {
		if limit == 0 {
			continue
		}
		w := a.windows[k]
		if w == nil || w.limit != limit || !w.covers(now) {
			w = q.turn(a, kind(k), limit, now, mono)
		}
		if w.held == 0 {
			lacking = true
			refused = refused || w.limit < 1 || w.look != 0 && (mono < w.look || q.circuit.open())
		}
	}
	switch {
	case refused:
	case lacking:
		busy = q.fetch(a, limits, mono)
	default:
		v.Allowed = true
		q.spend(a, limits, mono)
	}
	for k, limit := range limits {
		if limit != 0 {
			v.add(a.windows[k].standing(now))
		}
	}
	return busy, refused || !lacking
}

// standing returns what to tell a client about the window.
func (w *window) standing(now int64) standing {
	return standing{
		per: names[w.kind], limit: max(0, w.limit), remaining: w.remaining(),
		reset: time.Duration(max(1, w.end-now)), span: time.Duration(w.end - w.start),
	}
}

// turn returns the window of an account to use from now on, with the current limit.
func (q *Quotas) turn(a *account, k kind, limit, now, mono int64) *window {
	w := a.windows[k]
	if w == nil || !w.covers(now) {
		if w != nil && now < w.end {
			q.metrics.lost.Add(float64(w.held + w.back)) // the clock was set back
		}
		start, end := k.bounds(now)
		w = &window{kind: k, start: start, end: end, limit: limit, used: mono, markedAt: mono}
		a.windows[k] = w
	}
	if limit != w.limit {
		if limit < w.limit {
			// Calls taken under a higher limit must not be spent on top of what others have spent.
			w.back += w.held
			w.held = 0
		}
		w.limit, w.look = limit, 0
	}
	return w
}

// spend admits a call.
func (q *Quotas) spend(a *account, limits *[kinds]int64, mono int64) {
	for k, limit := range limits {
		if limit == 0 {
			continue
		}
		w := a.windows[k]
		w.held--
		w.spent++
		w.used = mono
		if w.low() && len(q.tickets) < cap(q.tickets) {
			q.begin(a, w, mono, false)
		}
	}
}

// fetch begins the transactions needed to have a call of each window at hand. It returns a channel that is closed when the first window's
// transaction ends; nil if etcd is unavailable.
func (q *Quotas) fetch(a *account, limits *[kinds]int64, mono int64) (busy <-chan struct{}) {
	for k, limit := range limits {
		if limit == 0 || a.windows[k].held > 0 {
			continue
		}
		w := a.windows[k]
		w.used = mono
		if w.busy == nil && q.begin(a, w, mono, false) {
			w.waiting++
			return w.busy // otherwise the first call of all would be refused when etcd is back
		}
		if w.busy == nil || q.circuit.open() {
			return nil
		}
		w.waiting++
		if busy == nil {
			busy = w.busy
		}
	}
	return busy
}
