package pipeline

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/gateway/authn"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/filter"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/limit"
)

// The reasons for which this package refuses calls, besides those of package authz.
const (
	ReasonUnauthenticated = "unauthenticated"
	ReasonNoService       = "no-service"
	ReasonInactive        = "inactive"
	ReasonSpike           = "spike-arrest"
	ReasonConcurrency     = "concurrency"
	ReasonQuota           = "quota"
	ReasonStoreAway       = "store-away"
	ReasonTooLarge        = "too-large"
	ReasonBusy            = "busy"
)

// check makes a filter from a decision about a call. An error refuses the call.
func (co *Compiler) check(decide func(c *call.Call, w http.ResponseWriter, r *http.Request) (reason string, err error)) filter.Filter {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := call.Of(r)
			if reason, err := decide(c, w, r); err != nil {
				co.Fail(c, w, reason, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// authenticate finds out who calls.
func (co *Compiler) authenticate(p *table.Policy) stage {
	methods := co.Authenticator.MethodsOf(&p.Spec)
	return stage{StageAuthenticate, co.check(func(c *call.Call, w http.ResponseWriter, r *http.Request) (string, error) {
		c.Policy = p
		err := co.Authenticator.Identify(c, r, methods)
		if err == nil {
			return "", nil
		}
		if refusal, ok := errors.AsType[*identity.Refusal](err); ok && refusal.Code != "" { // no proof at all is not worth reporting
			co.deny(c, r, refusal.Description)
		}
		return refused(w, err)
	})}
}

// deny reports a refusal to the audit stream.
func (co *Compiler) deny(c *call.Call, r *http.Request, why string) {
	e := audit.Entry{
		Action: "access.deny", Result: audit.Denied, Source: c.Info.Client.String(), Target: c.Target(r.Method),
		RequestID: c.Info.RequestID, Detail: why, Listener: "gateway",
	}
	if c.Caller != nil {
		e.Caller, e.Client, e.Via = c.Caller.Subject, c.Caller.ClientID, c.Caller.Via
	}
	co.Audit.Busy(e)
}

// permit makes a filter from a decision whether a caller may make a call. Calls that are forbidden are reported to the audit stream.
func (co *Compiler) permit(decide func(c *call.Call, r *http.Request) (reason string, err error)) filter.Filter {
	return co.check(func(c *call.Call, _ http.ResponseWriter, r *http.Request) (string, error) {
		reason, err := decide(c, r)
		if err != nil && errs.KindOf(err) == errs.Forbidden {
			co.deny(c, r, err.Error())
		}
		return reason, err
	})
}

// refused decides what a caller is told who could not be identified.
func refused(w http.ResponseWriter, err error) (string, error) {
	refusal, ok := errors.AsType[*identity.Refusal](err)
	if !ok {
		if errs.KindOf(err) == errs.TooManyRequests || errs.KindOf(err) == errs.Unavailable {
			return ReasonBusy, err
		}
		return ReasonUnauthenticated, err
	}
	w.Header()["Www-Authenticate"] = []string{refusal.Challenge(defaultScope)}
	kind := errs.Unauthenticated
	if refusal.Code == "invalid_request" {
		kind = errs.Invalid
	}
	return ReasonUnauthenticated, errs.New(kind, "%s", refusal.Description)
}

// recognise identifies the caller of a platform route, for limits and records. The platform decides whether the caller may call.
func (co *Compiler) recognise() stage {
	return stage{"", co.check(func(c *call.Call, w http.ResponseWriter, r *http.Request) (string, error) {
		if err := co.Authenticator.Identify(c, r, authn.Recognise); err != nil {
			return refused(w, err)
		}
		return "", nil
	})}
}

// rules applies the rules and scopes in the policy of a platform route.
func (co *Compiler) rules(p *table.Policy) stage {
	return stage{StageAuthorise, co.permit(func(c *call.Call, r *http.Request) (string, error) {
		c.Policy = p
		s := rule.Subject{Caller: c.Caller, Client: c.Info.Client, Method: r.Method, Path: withoutPrefix(c.Path)}
		if _, reason, err := co.Judge.Admit(p, &s); err != nil {
			return reason, err
		}
		return co.Judge.Key(c)
	})}
}

// withoutPrefix returns an Mp1 path without the prefix that Mp1 is mounted under, which says nothing about the resource.
func withoutPrefix(path string) string {
	for _, root := range []string{"/mec_service_mgmt/", "/mec_app_support/"} {
		if i := strings.Index(path, root); i > 0 {
			return path[i:]
		}
	}
	return path
}

// authorise decides whether the caller may make the call, and where the call may go.
func (co *Compiler) authorise(p *table.Policy) stage {
	return stage{StageAuthorise, co.permit(func(c *call.Call, r *http.Request) (string, error) {
		s := rule.Subject{Caller: c.Caller, Client: c.Info.Client, Method: r.Method, Path: c.Path}
		explicit, reason, err := co.Judge.Admit(p, &s)
		if err != nil {
			return reason, err
		}
		return co.Choose(c, explicit)
	})}
}

// Choose finds the endpoints that the call may go to.
func (co *Compiler) Choose(c *call.Call, explicit bool) (reason string, err error) {
	switch {
	case c.Instance != nil:
		c.Endpoints = c.Instance.Endpoints
		reason, err = co.Judge.Permit(c, c.Instance, explicit)
	case c.Group != nil:
		c.Endpoints, reason, err = co.Judge.Select(c, c.Group, explicit)
	case c.Route == nil:
		return ReasonNoService, errs.New(errs.NotFound, "there is no active service of this name or id that is reached through the gateway")
	case c.Route.Definition == nil || c.Route.Definition.Service == "":
		reason, err = co.Judge.Key(c)
	default:
		return ReasonInactive, errs.New(errs.Unavailable, "the service %s has no active instance", c.Route.Definition.Service)
	}
	if err == nil && len(c.Endpoints) == 0 {
		return ReasonInactive, errs.New(errs.Unavailable, "the service has no address that the gateway may call")
	}
	return reason, err
}

// consumer returns whom limits count a call for: the caller or, if unknown, the network of the client, which may have all of its addresses.
func consumer(c *call.Call) string {
	if c.Info.Consumer != "" {
		return c.Info.Consumer
	}
	return "address " + limit.Source(c.Info.Client)
}

// counted returns what limits count a call for: its service, or its route if it has no service or is a static route with a limit of its
// own.
func counted(c *call.Call, own bool) string {
	if c.Info.Service != "" && (!own || c.Route == nil) {
		return "service:" + c.Info.Service
	}
	return c.Info.Route
}

// retryConcurrent is how long a client should wait before it retries a call that the concurrency limit refused.
const retryConcurrent = time.Second

// bound limits the size of the request body.
func (co *Compiler) bound(most int64) stage {
	return stage{StageBody, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > most {
				w.Header()["Connection"] = []string{"close"}
				co.Fail(call.Of(r), w, ReasonTooLarge, errs.New(errs.TooLarge, "the body is larger than %d bytes", most))
				return
			}
			if r.Body != nil && r.Body != http.NoBody {
				r.Body = http.MaxBytesReader(w, r.Body, most)
			}
			next.ServeHTTP(w, r)
		})
	}}
}

// admitted records when a call was let through.
func (co *Compiler) admitted() stage {
	return stage{"", func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := call.Of(r)
			c.Admitted = c.Since()
			next.ServeHTTP(w, r)
		})
	}}
}

// exclusion holds patterns of paths; a filter does not see requests for them.
type exclusion []*match.Pattern

func exclusionOf(f *Named) (exclusion, error) {
	var e exclusion
	for _, s := range f.Exclude {
		p, err := match.NewPattern(s)
		if err != nil {
			return nil, err
		}
		e = append(e, p)
	}
	return e, nil
}

// has reports whether an escaped path is excluded.
func (e exclusion) has(escaped string) bool {
	var path match.Path
	return path.Parse(escaped) == nil && slices.ContainsFunc(e, func(p *match.Pattern) bool { return p.Match(path.Segments()) })
}

// excluding keeps excluded requests away from a filter.
func excluding(f *Named) (filter.Filter, error) {
	excluded, err := exclusionOf(f)
	if err != nil || len(excluded) == 0 {
		return f.Filter, err
	}
	return func(next http.Handler) http.Handler {
		filtered := f.Filter(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if excluded.has(r.URL.EscapedPath()) {
				next.ServeHTTP(w, r)
				return
			}
			filtered.ServeHTTP(w, r)
		})
	}, nil
}

// Run returns the names of the filters that a request for an escaped path runs through under a policy.
func (co *Compiler) Run(p *table.Policy, escaped string) []string {
	list := slices.Clone(p.Filters)
	at := len(list)
	for i := range slices.Backward(co.Filters) { // the filters of the configuration come last in the policy
		f := &co.Filters[i]
		if at--; at < 0 || list[at] != f.Name {
			at++ // the policy leaves this filter out
			continue
		}
		if excluded, err := exclusionOf(f); err == nil && excluded.has(escaped) {
			list = slices.Delete(list, at, at+1)
		}
	}
	return list
}

// ReasonPolicy is the reason for refusing calls whose policy cannot be applied.
const ReasonPolicy = "policy"
