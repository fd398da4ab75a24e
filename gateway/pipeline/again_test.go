package pipeline_test

import (
	"net/http"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/authn"
	"github.com/openmep/mep/gateway/authz"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/pipeline"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
)

// TestCallsUnderWayAreDecidedAboutAgain decides about calls of the app "me" by policies that changed meanwhile.
func TestCallsUnderWayAreDecidedAboutAgain(t *testing.T) {
	t.Parallel()
	e := new(table.Table).Edit()
	e.SetApp("me", &table.App{Declared: []string{"hello"}})
	apps := e.Done(1)
	revoked := errs.New(errs.Unauthenticated, "revoked")
	only := func(by ...gateway.Method) gateway.Policy { return gateway.Policy{Authentication: by} }
	platform := func(c *call.Call) {
		c.Route, c.Path = &table.Route{Kind: gateway.KindPlatform}, "/mep/mec_service_mgmt/v1/x"
	}
	keyed := func(c *call.Call) { c.Key, c.Services, c.Token = c.Caller, []string{"hello"}, "" }
	for name, c := range map[string]struct {
		policy    gateway.Policy
		change    func(*call.Call)
		instance  *table.Instance
		beside    *table.Instance // has the same address
		withdrawn error
		err       error
	}{
		"nothing changed":                {},
		"the proof was withdrawn":        {withdrawn: revoked, err: errs.Unauthenticated},
		"of one who need not be anybody": {policy: only(gateway.Anonymous), withdrawn: revoked},
		"who must be, for a rule":        {policy: gateway.Policy{Authentication: []gateway.Method{gateway.Anonymous}, Default: gateway.Deny, Rules: []gateway.Rule{{Effect: gateway.Allow, Consumers: []string{"me"}}}}, withdrawn: revoked, err: errs.Forbidden},
		"a token is not taken any more":  {policy: only(gateway.ByAPIKey), err: errs.Forbidden},
		"but nobody has to say":          {policy: only(gateway.ByAPIKey, gateway.Anonymous)},
		"a key is not taken any more":    {policy: only(gateway.ByToken, gateway.ByCertificate), change: keyed, err: errs.Forbidden},
		"a key is":                       {policy: only(gateway.ByAPIKey), change: keyed},
		"nobody is not let in any more":  {change: func(c *call.Call) { c.Caller, c.Token = nil, "" }, err: errs.Forbidden},
		"nobody is":                      {policy: only(gateway.ByToken, gateway.Anonymous), change: func(c *call.Call) { c.Caller, c.Token = nil, "" }},
		"a certificate is":               {policy: only(gateway.ByCertificate), change: func(c *call.Call) { c.Caller.Via, c.Token = "certificate", "" }},
		"a scope is asked for":           {policy: gateway.Policy{Scopes: []string{"more"}}, err: errs.Forbidden},
		"a rule denies":                  {policy: gateway.Policy{Rules: []gateway.Rule{{Effect: gateway.Deny, Methods: []string{"GET"}, Paths: []string{"/path/**"}}}}, err: errs.Forbidden},
		"a rule denies something else":   {policy: gateway.Policy{Rules: []gateway.Rule{{Effect: gateway.Deny, Methods: []string{"PUT"}}}}},
		"another service than declared":  {instance: &table.Instance{Service: "else"}, err: errs.Forbidden},
		"for local consumers":            {instance: &table.Instance{Service: "hello", LocalOnly: true}},
		"for those who asked":            {instance: &table.Instance{Service: "hello", Conditional: true}, err: errs.Forbidden},
		"of another owner":               {policy: gateway.Policy{Owners: []string{"good"}}, instance: &table.Instance{Service: "hello", Owner: "bad"}, err: errs.Forbidden},
		"beside one of another owner":    {policy: gateway.Policy{Owners: []string{"good"}}, instance: &table.Instance{Service: "hello", Owner: "good"}, beside: &table.Instance{Service: "hello", Owner: "bad"}},
		"beside one for those who asked": {instance: &table.Instance{Service: "hello", Conditional: true}, beside: &table.Instance{Service: "hello"}},
		"among those for who asked":      {instance: &table.Instance{Service: "hello", Conditional: true}, beside: &table.Instance{Service: "hello", Conditional: true}, err: errs.Forbidden},
		"to no instance yet":             {change: func(c *call.Call) { c.Group = table.NewGroup("hello", []*table.Instance{{Service: "hello"}}) }},
		"to none that may be used":       {change: func(c *call.Call) { c.Group = table.NewGroup("else", []*table.Instance{{Service: "else"}}) }, err: errs.Forbidden},
		"a key, to what is no service": {policy: only(gateway.ByAPIKey), change: func(c *call.Call) {
			keyed(c)
			c.Route = &table.Route{}
		}, err: errs.Forbidden},
		"of the platform":                    {change: platform},
		"of the platform, which denies":      {policy: gateway.Policy{Rules: []gateway.Rule{{Effect: gateway.Deny, Paths: []string{"/mec_service_mgmt/**"}}}}, change: platform, err: errs.Forbidden},
		"of the platform, with nothing left": {change: platform, withdrawn: revoked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.policy.Scopes == nil {
				c.policy.Scopes = []string{}
			}
			if c.policy.Default == "" {
				c.policy.Default = gateway.Allow
			}
			rules, err := rule.Compile(c.policy.Rules)
			require.NoError(t, err)
			co := &pipeline.Compiler{Stages: &pipeline.Stages{
				Authenticator: &authn.Authenticator{}, Judge: &authz.Judge{Granted: func(string, string, string) bool { return false }},
			}}
			k := &call.Call{
				Table: apps, Policy: &table.Policy{Spec: c.policy, Rules: rules}, Path: "/path/to", Token: "token",
				Caller: &identity.Caller{Subject: "me", Scopes: []string{"mp1"}, Via: "token"},
			}
			k.Info.Client = netip.MustParseAddr("192.0.2.1")
			if c.change != nil {
				c.change(k)
			}
			i := c.instance
			if i == nil && k.Group == nil && k.Route == nil {
				i = &table.Instance{Service: "hello"}
			}
			var to []*table.Instance
			for _, i := range []*table.Instance{i, c.beside} {
				if i != nil {
					to = append(to, i)
				}
			}
			require.ErrorIs(t, kindOf(co.Again(k, http.MethodGet, to, c.withdrawn)), c.err)
			slices.Reverse(to)
			require.ErrorIs(t, kindOf(co.Again(k, http.MethodGet, to, c.withdrawn)), c.err, "in whatever order")
		})
	}
	co := &pipeline.Compiler{Stages: &pipeline.Stages{}}
	require.Error(t, co.Again(&call.Call{Policy: &table.Policy{Closed: true}}, http.MethodGet, nil, nil))
}

func kindOf(err error) error {
	if err == nil {
		return nil
	}
	return errs.KindOf(err)
}
