// Package pipeline compiles policies from their definitions: each becomes a chain of filters in one fixed order.
//
//	authenticate → authorise → external authorisation → spike arrest → concurrency → quota → bound the body → filters of the
//	configuration → pass on
//
// The cheapest checks come first. Quotas come after authorisation, spike arrest and concurrency, so that they do not count the calls that
// those refuse.
package pipeline

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/authn"
	"github.com/openmep/mep/gateway/authz"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/extauth"
	"github.com/openmep/mep/gateway/filter"
	"github.com/openmep/mep/gateway/inflight"
	"github.com/openmep/mep/gateway/proxy"
	"github.com/openmep/mep/gateway/quota"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/spike"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
)

// The names of the stages, in order.
const (
	StageAuthenticate = "authentication"
	StageAuthorise    = "authorization"
	StageExternal     = "external-authorization"
	StageSpike        = "spike-arrest"
	StageConcurrency  = "concurrency"
	StageQuota        = "quota"
	StageBody         = "body"
	StageProxy        = "proxy"
)

// Named is a filter of the configuration.
type Named struct {
	// Name is the name of its kind.
	Name string
	// Filter is the filter itself.
	Filter filter.Filter
	// Exclude are patterns of paths; the filter does not see requests for them.
	Exclude []string
}

// Defaults are the gateway settings that policies fall back on.
type Defaults struct {
	// MaxBody is the maximum size of a request body in bytes; -1 means any size.
	MaxBody int64
	// Headers applies to header fields unless a policy says otherwise.
	Headers table.Plan
}

// Stages holds what the filters work with.
type Stages struct {
	Authenticator *authn.Authenticator
	Judge         *authz.Judge
	// External sends the requests of external authorisation.
	External        http.RoundTripper
	ExternalMetrics *extauth.Metrics
	Log             *slog.Logger
	Spike           *spike.Arrest
	InFlight        *inflight.Counts
	Quotas          *quota.Quotas
	Proxy           *proxy.Proxy
	// Audit receives the refusals of callers who may not call.
	Audit *audit.Log
	// Fail answers a call with an error, Gone records that the client no longer waits for an answer, and Refused counts an answer by the
	// gateway itself.
	Fail    func(c *call.Call, w http.ResponseWriter, reason string, err error)
	Gone    func(c *call.Call, err error)
	Refused func(reason string)
}

// Compiler compiles policies. A new configuration gets a new Compiler.
type Compiler struct {
	*Stages
	Defaults Defaults
	Filters  []Named
	Upstream *upstream.Manager
	// Refusing takes the place of policies that cannot be applied. Init sets it.
	Refusing *table.Policy
}

// Init prepares Refusing. It must be called before any other method.
func (co *Compiler) Init() error {
	profile, err := co.Upstream.Profile(gateway.Upstream{}, gateway.Timeouts{})
	if err != nil {
		return err
	}
	co.Refusing = &table.Policy{Profile: profile, Upstream: co.Upstream, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		co.Fail(call.Of(r), w, ReasonPolicy, errs.New(errs.Unavailable,
			"the policy of this route cannot be applied here: its operator finds the reason in the status of the gateway"))
	})}
	return nil
}

// Policy compiles the definition of a policy that has passed its Check. base fills in what the definition leaves open; it may be nil. The
// error says what this replica cannot use.
func (co *Compiler) Policy(name, source string, spec gateway.Policy, base *gateway.Policy) (*table.Policy, error) {
	definition := spec
	if base != nil {
		spec = Merge(spec, *base)
	}
	p, err := co.policy(name, source, spec)
	if err != nil {
		return nil, err
	}
	p.Definition = definition
	return p, co.chain(p, co.Proxy, co.authenticate(p), co.authorise(p))
}

// policy makes a policy without its chain.
func (co *Compiler) policy(name, source string, spec gateway.Policy) (*table.Policy, error) {
	p := &table.Policy{Name: name, Source: source, Spec: spec, Definition: spec, Upstream: co.Upstream}
	if p.Spec.Scopes == nil {
		p.Spec.Scopes = []string{defaultScope}
	}
	p.Spec.Default = cmp.Or(p.Spec.Default, gateway.Allow)
	var err error
	if p.Rules, err = rule.Compile(spec.Rules); err != nil {
		return nil, err
	}
	if p.Profile, err = co.Upstream.Profile(spec.Upstream, spec.Timeouts); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	p.Headers = plan(&spec, &co.Defaults.Headers)
	return p, nil
}

// defaultScope is the scope that callers must hold unless the policy says otherwise.
const defaultScope = "mp1"

// Platform compiles the policy of a platform route. The platform itself decides who may call, unless the route is guarded. local answers
// within this process; nil means that calls are passed on.
func (co *Compiler) Platform(name, source string, spec gateway.Policy, local http.Handler, guarded bool) (*table.Policy, error) {
	definition := spec
	spec.KeepAuthorization = true
	p, err := co.policy(name, source, spec)
	if err != nil {
		return nil, err
	}
	p.Definition = definition
	first := co.recognise()
	if guarded {
		first = co.authenticate(p)
	} else {
		p.Spec.Scopes = spec.Scopes // the platform decides what callers need
	}
	if local == nil {
		local = co.Proxy
	}
	return p, co.chain(p, local, first, co.rules(p))
}

// stage is a filter with a name.
type stage struct {
	name   string
	filter filter.Filter
}

// chain builds the handler of a policy: its filters in order, then last.
func (co *Compiler) chain(p *table.Policy, last http.Handler, stages ...stage) error {
	spec := &p.Spec
	if spec.ExternalAuth != nil {
		s, err := co.external(spec.ExternalAuth)
		if err != nil {
			return err
		}
		stages = append(stages, s)
	}
	if spec.SpikeArrest != nil {
		stages = append(stages, co.spike(p))
	}
	if spec.Concurrent > 0 {
		stages = append(stages, co.concurrency(p))
	}
	if len(spec.Quotas) > 0 {
		stages = append(stages, co.quota(p))
	}
	if most := cmp.Or(spec.MaxBody, co.Defaults.MaxBody); most > 0 {
		stages = append(stages, co.bound(most))
	}
	for i := range co.Filters {
		f := &co.Filters[i]
		if slices.Contains(spec.ExcludeFilters, f.Name) {
			continue
		}
		wrapped, err := excluding(f)
		if err != nil {
			return err
		}
		stages = append(stages, stage{f.Name, wrapped})
	}
	stages = append(stages, co.admitted())
	h := last
	for _, s := range slices.Backward(stages) {
		h = s.filter(h)
		if s.name != "" {
			p.Filters = append(p.Filters, s.name)
		}
	}
	slices.Reverse(p.Filters)
	p.Handler = h
	return nil
}
