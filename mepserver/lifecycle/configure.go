package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/fault"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/operation"
	"github.com/openmep/mep/mepserver/rules"
)

// Configure is a configuration of an app instance that the MEPM asks for.
type Configure struct {
	AppInstanceID string
	// Request has passed its Check; see also Manager.CheckRequest.
	Request mm5.ConfigPlatformForAppRequest
	// EdgeGallery says that it came in EdgeGallery's form: the rules are in force at once. SupportsMp1 is a member of it.
	EdgeGallery, SupportsMp1 bool
	// Allowed returns why the present configuration, nil when there is none, must not be replaced; may be nil.
	Allowed func(present *Configuration) error
}

// CheckRequest checks what a configuration asks of the platform: features and transports. The error is of the kind
// errs.Invalid.
func (m *Manager) CheckRequest(r *mm5.ConfigPlatformForAppRequest) error {
	policy := m.Policy()
	var faults problem.InvalidParams
	if len(policy.Features) > 0 {
		for i, f := range r.AppFeatureRequired {
			if !slices.ContainsFunc(policy.Features, func(has mp1.FeatureDependency) bool { return has.FeatureName == f.FeatureName }) {
				faults.Add(fmt.Sprintf("appFeatureRequired[%d].featureName", i), fmt.Sprintf("%q is not a feature of this platform: GET %s/capabilities lists them", f.FeatureName, operation.Root))
			}
		}
	}
	if missing := missingTransports(r.TransportDependencies, policy.Transports); missing != "" {
		faults.Add("transportDependencies", "the platform has no whole group of these transports: it lacks "+missing)
	}
	return errs.Params(faults)
}

// missingTransports returns what the platform lacks when it has no group of transports, whose members share a label, as a
// whole.
func missingTransports(deps []mp1.TransportDependency, has []mp1.TransportInfo) string {
	if len(deps) == 0 {
		return ""
	}
	groups := make(map[string]bool)
	var missing []string
	for _, d := range deps {
		supported := d.Transport != nil && slices.ContainsFunc(has, func(t mp1.TransportInfo) bool {
			return t.Type == d.Transport.Type && strings.EqualFold(t.Protocol, d.Transport.Protocol)
		})
		if !supported && d.Transport != nil {
			missing = append(missing, string(d.Transport.Type)+" over "+d.Transport.Protocol)
		}
		for _, label := range d.Labels {
			whole, seen := groups[label]
			groups[label] = supported && (whole || !seen)
		}
	}
	for _, whole := range groups {
		if whole {
			return ""
		}
	}
	return strings.Join(missing, ", ")
}

// plan is what a configuration would do.
type plan struct {
	present  *Configuration
	app      *apps.Item
	record   state.App
	running  bool
	plans    map[mm5.RuleKind]*rules.Plan
	members  []string // that change, apart from rules
	declared mm5.ConfigPlatformForAppRequest
}

func (p *plan) changed() bool {
	if p.present == nil || len(p.members) > 0 {
		return true
	}
	for _, r := range p.plans {
		if len(r.Ops) > 0 {
			return true
		}
	}
	return false
}

func (m *Manager) plan(in *Configure) (*plan, error) {
	p := &plan{declared: in.Request}
	p.declared.AppTrafficRule, p.declared.AppDNSRule = nil, nil
	origin := state.OriginMm5
	if in.EdgeGallery {
		origin = state.OriginEdgeGallery
	}
	p.app, p.record = m.record(in.AppInstanceID, origin)
	if p.app == nil {
		if err := CheckID(in.AppInstanceID); err != nil {
			return nil, err
		}
	}
	p.present, _ = m.Configuration(in.AppInstanceID)
	if in.Allowed != nil {
		if err := in.Allowed(p.present); err != nil {
			return nil, err
		}
	}
	switch s := p.record.State(); s {
	case mm5.LifecycleStopping, mm5.LifecycleTerminating:
		return nil, errs.New(errs.Conflict, "application instance %s is %s: configure it when that is over", in.AppInstanceID, s).After(1e9)
	case mm5.LifecycleStarted:
		p.running = true
	case mm5.LifecycleKnown, mm5.LifecycleConfigured:
		p.running = in.EdgeGallery
	}
	traffic, err := m.Traffic.Declare(in.AppInstanceID, in.Request.AppTrafficRule, p.running)
	if err != nil {
		return nil, err
	}
	dns, err := m.DNS.Declare(in.AppInstanceID, in.Request.AppDNSRule, p.running)
	if err != nil {
		return nil, err
	}
	p.plans = map[mm5.RuleKind]*rules.Plan{mm5.TrafficRules: traffic, mm5.DNSRules: dns}
	var was mm5.ConfigPlatformForAppRequest
	if p.present != nil {
		was = p.present.Value.Request
	}
	p.members, err = changedMembers(&was, &p.declared)
	return p, err
}

// changedMembers names the members in which two configurations differ.
func changedMembers(was, now *mm5.ConfigPlatformForAppRequest) ([]string, error) {
	list := []string{}
	a, b := reflect.ValueOf(was).Elem(), reflect.ValueOf(now).Elem()
	for i := range a.NumField() {
		if a.Field(i).IsZero() && b.Field(i).IsZero() {
			continue
		}
		x, err := json.Marshal(a.Field(i).Interface())
		if err != nil {
			return nil, err
		}
		y, err := json.Marshal(b.Field(i).Interface())
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(x, y) {
			name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
			list = append(list, name)
		}
	}
	return list, nil
}

// Declared is a configuration with its rules, as the MEPM declared it.
func (m *Manager) Declared(cfg *Configuration) mm5.ConfigPlatformForAppRequest {
	r := cfg.Value.Request
	id := strings.TrimPrefix(cfg.Key, state.PrefixConfigurations)
	if item := m.Traffic.Of(id); item != nil {
		for i := range item.Value.Record.Rules {
			r.AppTrafficRule = append(r.AppTrafficRule, item.Value.Record.Rules[i].Declared)
		}
	}
	if item := m.DNS.Of(id); item != nil {
		for i := range item.Value.Record.Rules {
			r.AppDNSRule = append(r.AppDNSRule, item.Value.Record.Rules[i].Declared)
		}
	}
	return r
}

// Diff says what a configuration would change, with the errors of Configure.
func (m *Manager) Diff(in Configure) (*mm5.ConfigurationDiff, error) {
	p, err := m.plan(&in)
	if err != nil {
		return nil, err
	}
	return &mm5.ConfigurationDiff{
		AppInstanceID: in.AppInstanceID, Changed: p.changed(), Creates: p.present == nil, Members: p.members,
		TrafficRules: p.plans[mm5.TrafficRules].Diff, DNSRules: p.plans[mm5.DNSRules].Diff,
	}, nil
}

// Configure stores a configuration and returns the id of the operation that brings its rules in force. The same configuration
// again is the same operation, unless that failed. Errors are those of Allowed, of the kinds errs.NotFound (what cannot be
// an id), errs.Invalid (more rules than fit), errs.Conflict (the instance is being stopped or terminated), and those of
// etcd.Store.Txn.
func (m *Manager) Configure(ctx context.Context, in Configure) (string, error) {
	defer m.locks.Lock(in.AppInstanceID)()
	fingerprint := operation.Fingerprint(mm5.OperationConfigure, in.Request)
	for range maxTries {
		p, err := m.plan(&in)
		if err != nil {
			return "", err
		}
		if id, same := m.repeated(p.record.Operation, fingerprint); same && !p.changed() {
			return id, nil
		}
		if err := m.room(); err != nil {
			return "", err
		}
		c, id := &change{}, operation.NewID()
		if err := m.configure(c, id, &in, p); err != nil {
			return "", err
		}
		err = m.begin(c, id, state.Operation{
			AppInstanceID: in.AppInstanceID, Type: mm5.OperationConfigure, EdgeGallery: in.EdgeGallery, Request: fingerprint,
		}, p.record.Operation, p.plans)
		if err != nil {
			return "", err
		}
		fault.Point("configure.planned")
		done, err := m.commit(ctx, m.Store, c)
		if err != nil {
			return "", err
		}
		if done {
			fault.Point("configure.stored")
			return id, nil
		}
	}
	return "", errContended(in.AppInstanceID)
}

// configure adds what a configuration changes.
func (m *Manager) configure(c *change, id string, in *Configure, p *plan) error {
	rec, generation := p.record, p.record.Generation
	rec.Operation = id
	if p.changed() {
		rec.Generation++
		generation = rec.Generation
		if in.Request.AppName != "" {
			rec.Name = in.Request.AppName
		}
		rec.Configured = declaredServices(&in.Request)
		switch {
		case rec.State() == mm5.LifecycleKnown && in.EdgeGallery, rec.State() == mm5.LifecycleConfigured && in.EdgeGallery:
			rec.Lifecycle = mm5.LifecycleStarted
		case rec.State() == mm5.LifecycleKnown:
			rec.Lifecycle = mm5.LifecycleConfigured
		}
	}
	if err := c.app(in.AppInstanceID, p.app, rec); err != nil {
		return err
	}
	key := state.ConfigurationKey(in.AppInstanceID)
	value, err := state.Encode(state.Configuration{
		Version: state.Current(), Generation: generation, Operation: id,
		EdgeGallery: in.EdgeGallery, SupportsMp1: in.SupportsMp1, Request: p.declared,
	})
	if err != nil {
		return err
	}
	c.add([]clientv3.Cmp{same(key, p.present)}, []clientv3.Op{clientv3.OpPut(key, value)})
	for _, r := range p.plans {
		c.add(r.Cmps, r.Ops)
	}
	return nil
}

// declaredServices are the names of the services a configuration lets the app discover.
func declaredServices(r *mm5.ConfigPlatformForAppRequest) []string {
	var names []string
	for _, d := range r.AppServiceRequired {
		names = append(names, d.SerName)
	}
	for _, d := range r.AppServiceOptional {
		names = append(names, d.SerName)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// repeated reports whether an operation was asked for by the same request and has not failed.
func (m *Manager) repeated(id, fingerprint string) (string, bool) {
	if id == "" {
		return "", false
	}
	item, err := m.Operations.Get(id)
	if err != nil || item.Value.Record.Request != fingerprint {
		return "", false
	}
	return id, item.Value.Record.State != mm5.OperationFailed
}

// room refuses an operation when far too many are kept already: those that have ended are cleared away in the background.
func (m *Manager) room() error {
	if most := m.Policy().MaxOperations; m.Operations.Collection().Snapshot().Len() > most+most/2 {
		return errs.New(errs.TooManyRequests, "there are more than %d operations: wait for some to end", most).After(5e9)
	}
	return nil
}

// Unconfigure removes the configuration of an app instance and its rules, and returns the id of the operation. An instance
// that nothing else made known, and that has nothing, is forgotten. The error is of the kind errs.NotFound when there is no
// configuration, else it is as for Configure.
func (m *Manager) Unconfigure(ctx context.Context, appInstanceID string, edgeGallery bool, allowed func(present *Configuration) error) (string, error) {
	defer m.locks.Lock(appInstanceID)()
	for range maxTries {
		app, err := m.find(appInstanceID)
		if err != nil {
			return "", err
		}
		present, ok := m.Configuration(appInstanceID)
		if !ok {
			return "", errs.New(errs.NotFound, "application instance %s has no configuration", appInstanceID)
		}
		if allowed != nil {
			if err := allowed(present); err != nil {
				return "", err
			}
		}
		rec := app.Value.Record
		if s := rec.State(); rec.Ending != nil {
			return "", errs.New(errs.Conflict, "application instance %s is %s: its configuration goes with it", appInstanceID, s).After(1e9)
		}
		c, id := &change{}, operation.NewID()
		plans := map[mm5.RuleKind]*rules.Plan{
			mm5.TrafficRules: m.Traffic.Remove(appInstanceID), mm5.DNSRules: m.DNS.Remove(appInstanceID),
		}
		for _, r := range plans {
			c.add(r.Cmps, r.Ops)
		}
		c.add([]clientv3.Cmp{present.Unchanged()}, []clientv3.Op{clientv3.OpDelete(present.Key)})
		if previous := rec.Operation; m.idle(appInstanceID, &rec) {
			c.add([]clientv3.Cmp{app.Unchanged()}, []clientv3.Op{clientv3.OpDelete(app.Key)})
			err = m.begin(c, id, unconfigured(appInstanceID, edgeGallery), previous, plans)
		} else {
			rec.Operation, rec.Lifecycle, rec.Configured = id, "", nil
			err = c.app(appInstanceID, app, rec)
			if err == nil {
				err = m.begin(c, id, unconfigured(appInstanceID, edgeGallery), previous, plans)
			}
		}
		if err != nil {
			return "", err
		}
		done, err := m.commit(ctx, m.Store.Urgent(), c)
		if err != nil {
			return "", err
		}
		if done {
			fault.Point("unconfigure.stored")
			return id, nil
		}
	}
	return "", errContended(appInstanceID)
}

func unconfigured(appInstanceID string, edgeGallery bool) state.Operation {
	return state.Operation{AppInstanceID: appInstanceID, Type: mm5.OperationUnconfigure, EdgeGallery: edgeGallery}
}

// idle reports whether an app instance is known only for its configuration and has nothing else.
func (m *Manager) idle(appInstanceID string, rec *state.App) bool {
	if rec.Origin != state.OriginMm5 && rec.Origin != state.OriginEdgeGallery {
		return false
	}
	return !some(m.Registry.Of(appInstanceID)) && !some(m.Availability.Of(appInstanceID)) && !some(m.Termination.Of(appInstanceID)) &&
		!m.HasCredentials(appInstanceID)
}

func some[V any](seq func(func(V) bool)) bool {
	for range seq {
		return true
	}
	return false
}

// HasCredentials reports whether there are credentials for an app instance.
func (m *Manager) HasCredentials(appInstanceID string) bool {
	return some(m.Identities.Credentials().Snapshot().Find(m.holders, appInstanceID))
}
