package liveness

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/mepserver/registry"
)

// Monitor receives heartbeats and suspends services that miss them.
type Monitor struct {
	reg         *registry.Registry
	policy      func() registry.Policy
	removeAfter func() time.Duration
	log         *slog.Logger
	tracker     *tracker
	share       *share

	beats, suspensions, revivals, removals prometheus.Counter
}

// New returns a monitor for the services of the registry. removeAfter returns how long a service may stay SUSPENDED
// before it is removed; 0 means for ever.
func New(reg *registry.Registry, policy func() registry.Policy, removeAfter func() time.Duration,
	log *slog.Logger, metrics prometheus.Registerer,
) *Monitor {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		metrics.MustRegister(c)
		return c
	}
	m := &Monitor{
		reg: reg, policy: policy, removeAfter: removeAfter, log: log, tracker: newTracker(),
		beats:       counter("mep_liveness_heartbeats_total", "Heartbeats received by this process."),
		suspensions: counter("mep_liveness_suspensions_total", "Services suspended by this process."),
		revivals:    counter("mep_liveness_revivals_total", "Suspensions ended by a heartbeat."),
		removals:    counter("mep_liveness_removals_total", "Services removed because they stayed suspended."),
	}
	metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_liveness_monitored", Help: "Services that send heartbeats.",
		}, func() float64 { return float64(m.tracker.monitored()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_liveness_expiry_paused",
			Help: "1 while expiry is paused because most services fell silent together, else 0. Alarm on it: the platform or its network is the likelier fault.",
		}, func() float64 {
			if m.tracker.paused(time.Now()) {
				return 1
			}
			return 0
		}),
	)
	reg.Services().Observe(m.tracker.changed)
	return m
}

// Info returns the liveness resource of a service. The error is of the kind errs.NotFound if no heartbeats are expected from it.
func (m *Monitor) Info(item *registry.Item) (mp1.ServiceLivenessInfo, error) {
	svc := item.Value
	if !svc.Monitored() {
		return mp1.ServiceLivenessInfo{}, errs.New(errs.NotFound,
			"service %s was registered without livenessInterval: no heartbeats are expected of it", svc.ID)
	}
	at := svc.Beat
	if last := m.tracker.last(svc.ID); last.After(at) {
		at = last
	}
	return mp1.ServiceLivenessInfo{
		State:     svc.State,
		TimeStamp: mp1.TimeStamp{Seconds: uint32(at.Unix()), NanoSeconds: uint32(at.Nanosecond())}, //nolint:gosec // good until 2106
		Interval:  svc.Interval,
	}, nil
}

// Beat records a heartbeat of one of the app's services. pre may reject the present state of the service. imposed
// reports whether the interval is no longer the one the app knows. Errors are of the kinds errs.NotFound,
// errs.Forbidden (another app's service), errs.Conflict (the service is INACTIVE), those of pre and, when the heartbeat
// ends a suspension, those of etcd.Store.Txn.
func (m *Monitor) Beat(ctx context.Context, appInstanceID, serInstanceID string, pre registry.Precondition,
) (item *registry.Item, imposed bool, err error) {
	now := time.Now()
	policy := m.policy()
	item, err = m.reg.Update(ctx, appInstanceID, serInstanceID, func(it *registry.Item) (*state.Service, error) {
		svc := it.Value
		if _, err := m.Info(it); err != nil {
			return nil, err
		}
		if err := pre(it); err != nil {
			return nil, err
		}
		if svc.State == mp1.StateInactive {
			return nil, errs.New(errs.Conflict, "service %s is INACTIVE: a heartbeat does not activate it, replace it (PUT) with state ACTIVE", svc.ID)
		}
		interval := policy.Interval(svc.Asked)
		imposed = interval != svc.Interval
		if svc.State == mp1.StateActive && !imposed {
			return nil, nil
		}
		if svc.State == mp1.StateSuspended {
			m.revivals.Inc()
		}
		rec, err := svc.Record()
		if err != nil {
			return nil, err
		}
		rec.Info.State, rec.Suspended, rec.Beat = mp1.StateActive, time.Time{}, now.UTC()
		rec.Info.LivenessInterval = &interval
		return &rec, nil
	})
	if err != nil {
		return nil, false, err
	}
	m.beats.Inc()
	m.tracker.heard(serInstanceID, now)
	if m.share != nil {
		m.share.note(serInstanceID, now)
	}
	return item, imposed, nil
}

// settleBatch is the number of services suspended in one transaction; etcd limits a transaction to 128 operations.
const settleBatch = 100

// Expire suspends and removes services that are due, until ctx ends. Only the leader runs it.
func (m *Monitor) Expire(ctx context.Context, term leader.Term) error {
	m.tracker.restart(m.removeAfter())
	defer m.tracker.rest()
	timer := time.NewTimer(0)
	defer timer.Stop()
	wasPaused := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-m.tracker.wake:
		}
		now := time.Now()
		suspend, remove, next := m.tracker.due(now)
		if paused := m.tracker.paused(now); paused != wasPaused {
			wasPaused = paused
			if paused {
				m.log.Error("most services fell silent together: expiry is paused for one interval, look at the platform's own network first")
			} else {
				m.log.Info("expiry goes on")
			}
		}
		for len(suspend) > 0 {
			n := min(len(suspend), settleBatch)
			m.suspend(ctx, term, suspend[:n], now)
			suspend = suspend[n:]
		}
		for _, e := range remove {
			m.remove(ctx, e, now)
		}
		timer.Reset(max(time.Until(next), 10*time.Millisecond))
	}
}

func (m *Monitor) suspend(ctx context.Context, term leader.Term, due []*entry, now time.Time) {
	var items []*registry.Item
	for _, e := range due {
		if item, err := m.reg.GetOwn(e.app, e.id); err == nil && m.tracker.silent(e, now) {
			items = append(items, item)
		}
	}
	n, err := m.reg.Suspend(ctx, items, now, term.Fence())
	m.suspensions.Add(float64(n))
	if err != nil {
		m.log.Warn("services not suspended yet, trying again", "services", len(items), "error", err)
	}
	if n < len(due) {
		// Services heard in the meantime are rescheduled when their turn comes again.
		for _, e := range due {
			m.tracker.again(e, now.Add(time.Second))
		}
	}
}

func (m *Monitor) remove(ctx context.Context, e *entry, now time.Time) {
	if !m.tracker.silent(e, now) {
		m.tracker.again(e, now.Add(time.Second))
		return
	}
	err := m.reg.Remove(ctx, e.app, e.id, func(it *registry.Item) error {
		if it.Value.State != mp1.StateSuspended {
			return errs.New(errs.Conflict, "service %s is alive again", e.id)
		}
		return nil
	})
	switch errs.KindOf(err) {
	case errs.Conflict, errs.NotFound:
		return
	}
	if err != nil {
		m.log.Warn("suspended service not removed yet, trying again", "service", e.id, "error", err)
		m.tracker.again(e, now.Add(time.Second))
		return
	}
	m.removals.Inc()
}

// Heard records that a service was heard from other than by a heartbeat, such as by replacing itself with the same content.
func (m *Monitor) Heard(item *registry.Item) {
	if item.Value.Monitored() {
		m.tracker.heard(item.Value.ID, time.Now())
	}
}
