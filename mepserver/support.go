package mepserver

import (
	"context"
	"fmt"
	"strings"

	"github.com/gin-gonic/gin"

	mm5types "github.com/openmep/mep/api/mm5"
	mp1types "github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/callback"
	"github.com/openmep/mep/mepserver/events"
	"github.com/openmep/mep/mepserver/govern"
	"github.com/openmep/mep/mepserver/lifecycle"
	"github.com/openmep/mep/mepserver/mm5"
	"github.com/openmep/mep/mepserver/notify"
	"github.com/openmep/mep/mepserver/operation"
	"github.com/openmep/mep/mepserver/reconcile"
	"github.com/openmep/mep/mepserver/registration"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/rules"
	"github.com/openmep/mep/mepserver/subscription"
	"github.com/openmep/mep/mepserver/termination"
	"github.com/openmep/mep/mepserver/timing"
)

// support holds the domain of application support and of Mm5.
type support struct {
	manager       *lifecycle.Manager
	termination   *termination.Book
	teller        *termination.Teller
	registrations *registration.Book
	clock         *timing.Clock
	events        *events.Stream
	reconcilers   []*reconcile.Reconciler
	govern        *govern.API
	agent         *agent // nil unless the platform's own DNS server applies DNS rules
	// leading is the work that only the leader does.
	leading []func(context.Context, leader.Term) error
}

// supportApps builds the domain of application support and of Mm5.
func (s *Server) supportApps(dir *apps.Directory, reg *registry.Registry, book *subscription.Book, client *callback.Client,
	base func() string, env *daemon.Env,
) (*support, error) {
	m, store, log := s.node.Mirror, s.node.Store, env.Log
	term := termination.New(m, store, dir, func() subscription.Policy { return s.policies.Load().subscription })
	statuses := reconcile.NewStatuses(m)
	p := &support{
		termination: term,
		teller:      termination.NewTeller(term, client, base, log, env.Metrics),
		clock:       timing.New(s.cfg.Mm5.Timing.clock(), log, env.Metrics),
		events:      events.New(store, log, env.Metrics),
		govern:      govern.New(m, reg, book, func() registry.View { return registry.View{Base: base()} }),
	}
	p.events.Follow(m.Revision, m.CatchUp)
	p.manager = (&lifecycle.Manager{
		Store: store, Mirror: m, Apps: dir,
		Traffic: rules.New(m, store, rules.Traffic), DNS: rules.New(m, store, rules.DNS), Operations: operation.NewLog(m),
		Statuses: statuses, Appliers: make(map[mm5types.RuleKind]string),
		Registry: reg, Availability: book, Termination: term, Identities: s.node.Directory,
		Policy: func() lifecycle.Policy { return s.policies.Load().lifecycle },
	}).Init()
	p.registrations = registration.New(m, store, dir, p.manager.HasCredentials, s.common.Dev)
	p.manager.Registered = p.registrations.Has
	source := &rules.Source{Traffic: p.manager.Traffic, DNS: p.manager.DNS, AppName: func(id string) string {
		if item, ok := dir.Get(id); ok {
			return item.Value.Record.Name
		}
		return ""
	}}
	engine := lifecycle.NewEngine(p.manager, p.teller, statuses.Observe, log, env.Metrics)
	p.leading = append(p.leading, engine.Run)
	kinds := map[string]mm5types.RuleKind{"dataplane": mm5types.TrafficRules, "dns": mm5types.DNSRules}
	for _, d := range s.cfg.Mm5.drivers() {
		switch d.driver {
		case driverNone:
			continue
		case DriverAgent:
			p.manager.Appliers[kinds[d.name]] = agentName
			p.agent = &agent{rules: p.manager.DNS, statuses: statuses}
			continue
		}
		secret, err := d.secret()
		if err != nil {
			return nil, err
		}
		d.hook.Secret = secret
		hook, err := reconcile.NewWebhook(d.hook, log, env.Metrics)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.name, err)
		}
		r := reconcile.New(reconcile.Config{Kind: kinds[d.name], Name: d.name, Resync: s.cfg.Mm5.Resync}, hook, source, statuses, store, log, env.Metrics)
		p.manager.Appliers[kinds[d.name]] = d.name
		p.reconcilers = append(p.reconcilers, r)
		p.leading = append(p.leading, r.Run)
		s.workers.Add(d.name+" certificates", hook.Run)
	}
	return p, nil
}

func (s *Server) mountMm5(router *gin.Engine, p *support, notifier *notify.Notifier, env *daemon.Env, also Also) {
	httpx.MountOpenAPI(router)
	router.Use(s.node.Gate(), s.node.Guard.Require("mm5", identity.ScopeMm5))
	api := &mm5.API{
		Lifecycle: p.manager, Events: p.events.Handler(), Audit: env.Audit, Version: daemon.Version,
		OwnURL: s.mm5.URL(), PublicURL: func() string { return strings.TrimSuffix(s.cfg.Mm5.PublicURL, "/") },
		Deliveries:  func(app string) map[string][]mm5types.Delivery { return deliveries(p, notifier, app) },
		Reconcilers: p.describe,
	}
	api.Mount(router)
	p.govern.Mount(router)
	if also.Mm5 != nil {
		also.Mm5(router)
	}
}

// describe returns the driver that applies the rules of each kind, with its state.
func (p *support) describe() []mm5types.Reconciler {
	list := []mm5types.Reconciler{}
	for _, kind := range []mm5types.RuleKind{mm5types.TrafficRules, mm5types.DNSRules} {
		v := mm5types.Reconciler{Kind: kind, Driver: driverNone}
		for _, r := range p.reconcilers {
			if r.Kind() == kind {
				h := r.Health()
				v.Name, v.Driver, v.Pending, v.FailingSince, v.LastError = r.Name(), r.Driver(), h.Pending, h.FailingSince, h.LastError
			}
		}
		if kind == mm5types.DNSRules && p.agent != nil {
			v.Name, v.Driver, v.Pending = agentName, DriverAgent, p.agent.pending()
		}
		list = append(list, v)
	}
	return list
}

// agentName is the name under which the platform's DNS server reports.
const agentName = "dnsagent"

// agent tracks the platform's DNS server by its reports.
type agent struct {
	rules    *rules.Table[mp1types.DNSRule]
	statuses *reconcile.Statuses
}

// pending returns the number of app instances with DNS rules whose present generation the agent has not reported.
func (a *agent) pending() int {
	n := 0
	for item := range a.rules.Collection().Snapshot().All() {
		generation := item.Value.Record.Generation
		if status, ok := a.statuses.Of(agentName, item.Value.AppInstanceID); generation > 0 && (!ok || status.Generation != generation) {
			n++
		}
	}
	return n
}

// deliveries returns the state of notification deliveries by app instance, of all app instances if app is empty.
func deliveries(p *support, notifier *notify.Notifier, app string) map[string][]mm5types.Delivery {
	by := make(map[string][]mm5types.Delivery)
	for _, d := range notifier.Deliveries() {
		if app != "" && d.AppInstanceID != app {
			continue
		}
		by[d.AppInstanceID] = append(by[d.AppInstanceID], mm5types.Delivery{
			SubscriptionID: d.SubscriptionID, SubscriptionType: mp1types.SubscriptionTypeSerAvailability,
			CallbackReference: d.CallbackReference, Pending: d.Pending, FailingSince: d.FailingSince, LastError: d.LastError,
		})
	}
	told := p.termination.Collection().Snapshot().All()
	if app != "" {
		told = p.termination.Of(app)
	}
	for item := range told {
		sub := item.Value
		v := mm5types.Delivery{
			SubscriptionID: sub.ID, SubscriptionType: mp1types.SubscriptionTypeAppTermination,
			CallbackReference: sub.Record.CallbackReference,
		}
		if d, ok := p.teller.Delivery(sub.ID); ok {
			v.FailingSince, v.LastError = d.FailingSince, d.LastError
			if d.Pending {
				v.Pending = 1
			}
		}
		by[sub.AppInstanceID] = append(by[sub.AppInstanceID], v)
	}
	return by
}
