package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

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

// Configure is a configuration of an app instance that the MEPM requests.
type Configure struct {
	AppInstanceID string
	// Request has passed its Check; see also Manager.CheckRequest.
	Request mm5.ConfigPlatformForAppRequest
	// EdgeGallery means that the request has EdgeGallery's form: the rules are in force at once. SupportsMp1 is a member of
	// that form.
	EdgeGallery, SupportsMp1 bool
	// Allowed returns why the present configuration, nil if there is none, must not be replaced. Allowed may be nil.
	Allowed func(present *Configuration) error
}

// CheckRequest checks what a configuration requires of the platform: features and transports. The error is of the kind
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

// missingTransports returns the transports that the platform lacks if it supports no group of them as a whole. The members of
// a group share a label.
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

// cmps returns comparisons that hold as long as what the plan is based on has not changed.
func (p *plan) cmps(appInstanceID string) []clientv3.Cmp {
	cmps := []clientv3.Cmp{same(state.AppKey(appInstanceID), p.app), same(state.ConfigurationKey(appInstanceID), p.present)}
	for _, r := range p.plans {
		cmps = append(cmps, r.Cmps...)
	}
	return cmps
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

// maxNames bounds the names of the services that an app declares, in bytes: they are part of its record.
const maxNames = 128 << 10

func (m *Manager) plan(in *Configure) (*plan, error) {
	if err := apps.CheckID(in.AppInstanceID); err != nil {
		return nil, err
	}
	p := &plan{declared: in.Request}
	p.declared.AppTrafficRule, p.declared.AppDNSRule = nil, nil
	origin := state.OriginMm5
	if in.EdgeGallery {
		origin = state.OriginEdgeGallery
	}
	p.app, p.record = m.record(in.AppInstanceID, origin)
	if p.app == nil {
		if m.Identities.Manager(in.AppInstanceID) {
			return nil, errs.New(errs.Conflict, "%q is the name of a manager: an application instance cannot have it", in.AppInstanceID)
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
		return nil, errs.New(errs.Conflict, "application instance %s is %s: configure it when that is over", in.AppInstanceID, s).After(time.Second)
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
	if b, err := json.Marshal(declaredServices(&in.Request)); err != nil || len(b) > maxNames {
		var faults problem.InvalidParams
		faults.Add("appServiceRequired", fmt.Sprintf("and appServiceOptional have names of more than %d bytes together", maxNames))
		return nil, errs.Params(faults)
	}
	p.members, err = changedMembers(&was, &p.declared)
	if p.present != nil && in.SupportsMp1 != p.present.Value.SupportsMp1 {
		p.members = append(p.members, "appSupportMp1")
	}
	if in.EdgeGallery && p.record.State() == mm5.LifecycleConfigured {
		p.members = append(p.members, "lifecycle")
	}
	return p, err
}

// changedMembers returns the names of the members in which two configurations differ.
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

// records are the records that make up the configuration of an app instance; nil where there is none.
type records struct {
	app           *apps.Item
	configuration *Configuration
	traffic       *rules.Item[mp1.TrafficRule]
	dns           *rules.Item[mp1.DNSRule]
}

// records returns the records as one transaction left them.
func (m *Manager) records(appInstanceID string) (r records) {
	m.Mirror.Together(func() {
		r.app, _ = m.Apps.Get(appInstanceID)
		r.configuration, _ = m.Configuration(appInstanceID)
		r.traffic, r.dns = m.Traffic.Of(appInstanceID), m.DNS.Of(appInstanceID)
	})
	return r
}

// Declared returns the configuration of an app instance, and what the MEPM declared, including the rules. ok is false if
// there is no configuration.
func (m *Manager) Declared(appInstanceID string) (cfg *Configuration, declared mm5.ConfigPlatformForAppRequest, ok bool) {
	r := m.records(appInstanceID)
	if r.configuration == nil {
		return nil, declared, false
	}
	declared = r.configuration.Value.Request
	if r.traffic != nil {
		for i := range r.traffic.Value.Record.Rules {
			declared.AppTrafficRule = append(declared.AppTrafficRule, r.traffic.Value.Record.Rules[i].Declared)
		}
	}
	if r.dns != nil {
		for i := range r.dns.Value.Record.Rules {
			declared.AppDNSRule = append(declared.AppDNSRule, r.dns.Value.Record.Rules[i].Declared)
		}
	}
	return r.configuration, declared, true
}

// Diff returns what a configuration would change, with the errors of Configure.
func (m *Manager) Diff(in Configure) (*mm5.ConfigurationDiff, error) {
	for range maxTries {
		before := m.records(in.AppInstanceID)
		p, err := m.plan(&in)
		if m.records(in.AppInstanceID) != before {
			continue // the comparison may have mixed parts of two configurations
		}
		if err != nil {
			return nil, err
		}
		return &mm5.ConfigurationDiff{
			AppInstanceID: in.AppInstanceID, Changed: p.changed(), Creates: p.present == nil, Members: p.members,
			TrafficRules: p.plans[mm5.TrafficRules].Diff, DNSRules: p.plans[mm5.DNSRules].Diff,
		}, nil
	}
	return nil, errContended(in.AppInstanceID)
}

// Configure stores a configuration and returns the id of the operation that puts its rules in force. Repeating a
// configuration returns the same operation, unless that failed. Errors are those of Allowed, of the kinds errs.NotFound (not
// a valid app instance id), errs.Invalid (more than fits), errs.Conflict (the instance is being stopped or terminated, or its
// id is a manager's name), errs.TooManyRequests (far too many operations are kept), and those of etcd.Store.Txn.
func (m *Manager) Configure(ctx context.Context, in Configure) (string, error) {
	unlock, err := m.locks.Lock(ctx, in.AppInstanceID)
	if err != nil {
		return "", err
	}
	defer unlock()
	fingerprint := operation.Fingerprint(mm5.OperationConfigure, []any{in.Request, in.EdgeGallery, in.SupportsMp1})
	for range maxTries {
		p, err := m.plan(&in)
		if err != nil {
			return "", err
		}
		if err := m.room(); err != nil {
			return "", err
		}
		c, id := &change{}, operation.NewID()
		if p.changed() {
			err = m.configure(c, id, &in, p)
		} else {
			if same := m.repeated(in.AppInstanceID, mm5.OperationConfigure, fingerprint); same != "" {
				if done, err := m.holds(ctx, p.cmps(in.AppInstanceID)); err != nil || done {
					return same, err
				}
				continue
			}
			c.cmps = p.cmps(in.AppInstanceID)
		}
		if err == nil {
			err = m.begin(ctx, c, id, state.Operation{
				AppInstanceID: in.AppInstanceID, Type: mm5.OperationConfigure, EdgeGallery: in.EdgeGallery, Request: fingerprint,
			}, p.changed(), p.plans)
		}
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

// configure adds the writes of a configuration.
func (m *Manager) configure(c *change, id string, in *Configure, p *plan) error {
	rec := p.record
	rec.Operation = id
	rec.Generation++
	if in.Request.AppName != "" {
		rec.Name = in.Request.AppName
	}
	rec.Configured = declaredServices(&in.Request)
	switch s := rec.State(); {
	case in.EdgeGallery && (s == mm5.LifecycleKnown || s == mm5.LifecycleConfigured):
		rec.Lifecycle = mm5.LifecycleStarted
	case s == mm5.LifecycleKnown:
		rec.Lifecycle = mm5.LifecycleConfigured
	}
	if err := c.app(in.AppInstanceID, p.app, rec); err != nil {
		return err
	}
	key := state.ConfigurationKey(in.AppInstanceID)
	value, err := state.Encode(state.Configuration{
		Version: state.Current(), Generation: rec.Generation, Operation: id,
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

// declaredServices returns the names of the services that a configuration lets the app discover.
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

// repeated returns the id of the operation that the same request asked for before, empty if there is none, if it failed, or
// if another operation undid it.
func (m *Manager) repeated(appInstanceID string, of mm5.OperationType, fingerprint string) string {
	for _, item := range m.Operations.Of(appInstanceID) {
		switch rec := &item.Value.Record; {
		case rec.Request == fingerprint && rec.State != mm5.OperationFailed:
			return item.Value.ID
		case rec.Type == of, undoes[of] == rec.Type, rec.Type == mm5.OperationTerminate, rec.Type == mm5.OperationUnconfigure:
			return ""
		}
	}
	return ""
}

// undoes maps an operation to the one that undoes it.
var undoes = map[mm5.OperationType]mm5.OperationType{
	mm5.OperationStart: mm5.OperationStop, mm5.OperationStop: mm5.OperationStart,
}

// room refuses an operation if far too many are kept already: ended ones are removed in the background.
func (m *Manager) room() error {
	if most := m.Policy().MaxOperations; m.Operations.Collection().Snapshot().Len() > most+most/2 {
		return errs.New(errs.TooManyRequests, "there are more than %d operations: wait for some to end", most).After(5 * time.Second)
	}
	return nil
}

// Unconfigure removes the configuration of an app instance and its rules, and returns the id of the operation. An instance
// that nothing else made known, and that has nothing else, is forgotten. The error is of the kind errs.NotFound if there is
// no configuration, otherwise as for Configure.
func (m *Manager) Unconfigure(ctx context.Context, appInstanceID string, edgeGallery bool, allowed func(present *Configuration) error) (string, error) {
	unlock, err := m.locks.Lock(ctx, appInstanceID)
	if err != nil {
		return "", err
	}
	defer unlock()
	for range maxTries {
		app, err := m.find(appInstanceID)
		present, configured := m.Configuration(appInstanceID)
		if id := m.last(appInstanceID, mm5.OperationUnconfigure); id != "" && !configured {
			if done, err := m.holds(ctx, []clientv3.Cmp{same(state.AppKey(appInstanceID), app)}); err != nil || done {
				return id, err
			}
			continue
		}
		if err == nil && !configured {
			err = errs.New(errs.NotFound, "application instance %s has no configuration", appInstanceID)
		}
		if err != nil {
			return "", err
		}
		if allowed != nil {
			if err := allowed(present); err != nil {
				return "", err
			}
		}
		rec := app.Value.Record
		if s := rec.State(); rec.Ending != nil {
			return "", errs.New(errs.Conflict, "application instance %s is %s: try again when that is over", appInstanceID, s).After(time.Second)
		}
		c, id := &change{}, operation.NewID()
		plans := map[mm5.RuleKind]*rules.Plan{
			mm5.TrafficRules: m.Traffic.Remove(appInstanceID), mm5.DNSRules: m.DNS.Remove(appInstanceID),
		}
		for _, r := range plans {
			c.add(r.Cmps, r.Ops)
		}
		c.add([]clientv3.Cmp{present.Unchanged()}, []clientv3.Op{clientv3.OpDelete(present.Key)})
		rec.Operation, rec.Lifecycle, rec.Configured, rec.Ready = id, "", nil, time.Time{}
		if m.idle(appInstanceID, &rec) {
			c.add(append(nothingOf(appInstanceID), app.Unchanged()), []clientv3.Op{clientv3.OpDelete(app.Key)})
		} else {
			err = c.app(appInstanceID, app, rec)
		}
		if err == nil {
			err = m.begin(ctx, c, id, state.Operation{
				AppInstanceID: appInstanceID, Type: mm5.OperationUnconfigure, EdgeGallery: edgeGallery,
			}, true, plans)
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

// nothingOf returns comparisons that hold as long as an app instance has nothing of its own. They do not cover its
// credentials, but creating those changes its record.
func nothingOf(appInstanceID string) []clientv3.Cmp {
	cmps := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(state.RegistrationKey(appInstanceID)), "=", 0)}
	for _, prefix := range []string{state.PrefixServices, state.PrefixAvailSubs, state.PrefixTermSubs} {
		// This holds for a range without keys.
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(prefix+appInstanceID+"/"), "=", 0).WithPrefix())
	}
	return cmps
}

// idle reports whether an app instance is known only for its configuration and has nothing else.
func (m *Manager) idle(appInstanceID string, rec *state.App) bool {
	if rec.Origin != state.OriginMm5 && rec.Origin != state.OriginEdgeGallery {
		return false
	}
	return !some(m.Registry.Of(appInstanceID)) && !some(m.Availability.Of(appInstanceID)) && !some(m.Termination.Of(appInstanceID)) &&
		!m.Registered(appInstanceID) && !m.HasCredentials(appInstanceID)
}

func some[V any](seq func(func(V) bool)) bool {
	for range seq {
		return true
	}
	return false
}

// HasCredentials reports whether an app instance has credentials.
func (m *Manager) HasCredentials(appInstanceID string) bool {
	return some(m.Identities.AppCredentials(appInstanceID))
}
