package gateway

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/authn"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/front"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
)

// escaped returns a name as one segment of a path.
func escaped(name string) string { return url.PathEscape(name) }

// targetOf parses the URL of a call, or its path alone.
func targetOf(raw string) (*url.URL, error) {
	if strings.HasPrefix(raw, "/") {
		return url.ParseRequestURI(raw)
	}
	u, err := url.Parse(raw)
	if err == nil && u.Path == "" {
		u.Path = "/"
	}
	return u, err
}

// explaining collects the findings about a call that is not made.
type explaining struct {
	*server
	e *gateway.Explanation
	c *call.Call
	r *http.Request
	// scopes are the requested scopes; nil means those that the caller has.
	scopes []string
}

// Explain implements rest.Server. It decides with the functions that decide about real calls, but counts nothing and asks nobody.
func (s *server) Explain(ctx context.Context, req gateway.ExplainRequest) (*gateway.Explanation, error) {
	u, err := targetOf(req.URL)
	if err != nil {
		return nil, errs.New(errs.Invalid, "url: %q is not a URL", req.URL)
	}
	x := &explaining{server: s, e: &gateway.Explanation{}, c: &call.Call{Context: ctx, Table: s.table()}, scopes: req.Scopes}
	x.r = &http.Request{
		Method: req.Method, Host: cmp.Or(u.Host, "localhost"), Header: make(http.Header),
		URL: &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery},
	}
	x.r = x.r.WithContext(x.c)
	for name, value := range req.Headers {
		x.r.Header.Set(name, value)
	}
	x.c.Writer.Reset(discard{http.Header{}}, x.r, 0)
	x.c.Info.Client = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if req.Source != "" {
		a, err := netip.ParseAddr(req.Source)
		if err != nil {
			return nil, errs.New(errs.Invalid, "source: %q is not an address", req.Source)
		}
		x.c.Info.Client = a.Unmap().WithZone("")
	}
	if req.Consumer != "" {
		scopes := req.Scopes
		if scopes == nil {
			scopes = []string{identity.ScopeMp1}
		}
		x.c.Caller = &identity.Caller{Subject: req.Consumer, Scopes: scopes, Via: "token"}
		x.c.Info.Consumer, x.c.Info.Scopes = req.Consumer, scopes
	}
	x.run()
	return x.e, nil
}

func (x *explaining) step(name, format string, args ...any) {
	x.e.Steps = append(x.e.Steps, gateway.ExplainStep{Name: name, Result: fmt.Sprintf(format, args...)})
}

// stop records why the call would get no further.
func (x *explaining) stop(name string, err error) {
	x.e.Status, x.e.Reason = errs.KindOf(err).Status(), err.Error()
	x.step(name, "%s", err)
}

func (x *explaining) run() {
	if err := front.Method(x.r.Method); err != nil {
		x.stop("method", err)
		return
	}
	var path match.Path
	if err := path.Clean(x.r.Method, x.r.URL); err != nil {
		x.stop("path", err)
		return
	}
	if _, err := x.handler.Route(x.c, x.r, &path); err != nil {
		x.stop("route", err)
		return
	}
	x.host()
	p := x.c.Policy
	x.e.Route, x.e.Path, x.e.Filters = x.view(), x.c.Path, x.compiler.Load().Run(p, x.r.URL.EscapedPath())
	x.step("route", "%s, by the policy %q (%s)", cmp.Or(routeName(x.e.Route), x.c.Info.Route), p.Name, p.Source)
	if p.Closed {
		x.stop("policy", errs.New(errs.Unavailable, "the policy cannot be applied here: see the status of the gateway"))
		return
	}
	if x.c.Route != nil && x.c.Route.Kind == gateway.KindPlatform {
		subject := rule.Subject{Caller: x.c.Caller, Client: x.c.Info.Client, Method: x.r.Method, Path: x.c.Path}
		if _, _, err := x.compiler.Load().Judge.Admit(p, &subject); err != nil {
			x.stop("policy", err)
			return
		}
		x.limits(p)
		x.e.Reason = "passed on to the platform, which decides by itself who may call"
		return
	}
	if !x.caller(p) {
		return
	}
	compiler := x.compiler.Load()
	subject := rule.Subject{Caller: x.c.Caller, Client: x.c.Info.Client, Method: x.r.Method, Path: x.c.Path}
	explicit, _, err := compiler.Judge.Admit(p, &subject)
	if err != nil {
		x.stop("policy", err)
		return
	}
	switch effect, number := rule.Decide(p.Rules, &subject); {
	case number >= 0:
		x.step("policy", "rule %d says %s", number, effect)
	case len(p.Rules) > 0:
		x.step("policy", "no rule matches, the default is %s", p.Spec.Default)
	default:
		x.step("policy", "there are no rules, the default is %s", p.Spec.Default)
	}
	if _, err := compiler.Choose(x.c, explicit); err != nil {
		x.stop("entitlement", err)
		return
	}
	x.step("entitlement", "the caller may use it")
	x.limits(p)
	for _, ep := range x.c.Endpoints {
		v := ep.View()
		if x.c.Group != nil {
			v.Instance = x.c.Group.InstanceOf(ep)
		}
		x.e.Targets = append(x.e.Targets, v)
	}
	x.e.Reason = "allowed"
}

// host explains what the host of the call names, if that decided what the call is for.
func (x *explaining) host() {
	place, below := x.c.Table.Domain().Below(x.r.Host)
	if !below || x.c.Route != nil {
		return
	}
	if place.Instance {
		x.step("host", "%s is that of the instance %s", x.r.Host, place.Label)
		return
	}
	x.step("host", "%s %s", x.r.Host, meaning(x.c.Table.Labelled(place.Label), place.Label))
}

// meaning explains what a label of the service domain stands for, and why.
func meaning(l *table.Label, label string) string {
	if l == nil {
		return "would be that of a service " + label
	}
	var b strings.Builder
	switch {
	case l.Group != nil:
		b.WriteString("is that of the service " + l.Name)
	case l.Name != "":
		b.WriteString("would be that of the service " + l.Name + ", which has a policy and no active instance")
	default:
		b.WriteString("is that of no service: names differ in case only")
	}
	others := func(kind string, names []string) {
		if names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == l.Name }); len(names) > 0 {
			fmt.Fprintf(&b, "; %s %s", kind, strings.Join(names, ", "))
		}
	}
	others("there are services that are not reached by it, with the spelling", l.Groups)
	others("there are policies with the spelling", l.Policies)
	return b.String()
}

func routeName(v *gateway.RouteView) string {
	if v == nil {
		return ""
	}
	return v.ID
}

// view returns the matched route.
func (x *explaining) view() *gateway.RouteView {
	switch {
	case x.c.Route != nil:
		return routeView(x.c.Table, x.c.Route)
	case x.c.Group != nil:
		return groupView(x.c.Table, x.c.Group)
	case x.c.Instance != nil:
		return instanceView(x.c.Table, x.c.Instance)
	}
	return nil
}

// caller reports whether the caller would be let in at all, and explains why.
func (x *explaining) caller(p *table.Policy) bool {
	m := x.compiler.Load().Authenticator.MethodsOf(&p.Spec)
	if x.c.Caller != nil {
		if key := x.key(m); key != nil {
			x.c.Services = key.Info.Services
			if x.scopes == nil {
				x.c.Caller.Scopes, x.c.Info.Scopes = key.Caller.Scopes, key.Caller.Scopes
			}
			x.c.Caller.Via = string(gateway.ByAPIKey)
			x.step("authentication", "%s, with the API key %s and the scopes %s", x.c.Caller.Subject, key.Info.ID, strings.Join(x.c.Caller.Scopes, " "))
			return true
		}
		switch {
		case m.Token:
			x.c.Caller.Via = string(gateway.ByToken)
		case m.Key:
			x.c.Caller.Via = string(gateway.ByAPIKey)
		case m.Certificate:
			x.c.Caller.Via = string(gateway.ByCertificate)
		}
		x.step("authentication", "%s, with the scopes %s", x.c.Caller.Subject, strings.Join(x.c.Caller.Scopes, " "))
		return true
	}
	if m.Anonymous {
		x.step("authentication", "nobody has to say who calls")
		return true
	}
	x.stop("authentication", errs.New(errs.Unauthenticated, "who calls is not known, and the policy wants to know"))
	return false
}

// key returns the API key that the caller would present, preferably one that is valid for the called service; nil when there is none. App
// instances present their token where they may.
func (x *explaining) key(m authn.Methods) (best *book.Key) {
	if !m.Key || m.Token && x.c.Table.App(x.c.Caller.Subject) != nil {
		return nil
	}
	now := time.Now()
	for key := range x.book.Keys.Of(x.c.Caller.Subject, "") {
		if e := key.Info.Expires; !e.IsZero() && !now.Before(e) {
			continue
		}
		if len(key.Info.Services) == 0 || slices.Contains(key.Info.Services, x.c.Info.Service) {
			return key
		}
		best = key
	}
	return best
}

// limits lists the external authorisation and the limits that apply.
func (x *explaining) limits(p *table.Policy) {
	s := &p.Spec
	if s.ExternalAuth != nil {
		x.step("external authorization", "%s is asked", s.ExternalAuth.URL)
	}
	if s.SpikeArrest != nil {
		x.step("spike arrest", "%d calls a %s, %d may wait", s.SpikeArrest.Calls, s.SpikeArrest.Per, s.SpikeArrest.Buffer)
	}
	if s.Concurrent > 0 {
		x.step("concurrency", "%d calls at a time", s.Concurrent)
	}
	for _, q := range s.Quotas {
		x.step("quota", "%d calls a %s", q.Calls, q.Per)
	}
}

// discard is a response that nobody reads.
type discard struct{ header http.Header }

// Header implements http.ResponseWriter.
func (d discard) Header() http.Header { return d.header }

// Write implements http.ResponseWriter.
func (d discard) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (d discard) WriteHeader(int) {}
