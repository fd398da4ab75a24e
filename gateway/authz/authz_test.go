package authz_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/authz"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
)

// apps returns a table with two apps: one that declared nothing, and one that declared that it uses "hello".
func apps() *table.Table {
	e := new(table.Table).Edit()
	e.SetApp("free", &table.App{})
	e.SetApp("bound", &table.App{Declared: []string{"hello"}})
	e.SetApp("owner", &table.App{Declared: []string{"else"}})
	return e.Done(1)
}

func policy(sharing string) *table.Policy {
	return &table.Policy{Spec: gateway.Policy{Sharing: sharing}}
}

func TestWhoMayUseAnInstance(t *testing.T) {
	t.Parallel()
	far, near := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("192.0.2.1")
	hello := table.Instance{Owner: "owner", Service: "hello"}
	other := table.Instance{Owner: "owner", Service: "other"}
	local := table.Instance{Owner: "owner", Service: "hello", LocalOnly: true}
	shared := table.Instance{Owner: "owner", Service: "hello", Conditional: true}
	all := table.Instance{Owner: "owner", Service: "hello", Conditional: true, LocalOnly: true}
	const token, key = "token", authz.ViaAPIKey
	for name, c := range map[string]struct {
		caller, via string
		services    []string
		from        netip.Addr
		instance    table.Instance
		sharing     string
		explicit    bool
		open        bool
		owners      []string
		reason      string
	}{
		"the provider the policy knows":            {caller: "free", via: token, instance: hello, owners: []string{"x", "owner"}},
		"a provider the policy does not know":      {caller: "free", via: token, instance: hello, owners: []string{"x"}, reason: authz.ReasonOwner},
		"nobody, and such a provider":              {instance: hello, owners: []string{"x"}, reason: authz.ReasonOwner},
		"an app that declared nothing":             {caller: "free", via: token, instance: other},
		"an app that declared it":                  {caller: "bound", via: token, instance: hello},
		"an app that declared others":              {caller: "bound", via: token, instance: other, reason: authz.ReasonEntitled},
		"a rule does not help an app that did not": {caller: "bound", via: token, instance: other, explicit: true, reason: authz.ReasonEntitled},
		"its owner":                                    {caller: "owner", via: token, from: far, instance: all},
		"its owner, with a key":                        {caller: "owner", via: key, from: far, instance: all},
		"its owner, with a key for others":             {caller: "owner", via: key, services: []string{"other"}, instance: hello, reason: authz.ReasonEntitled},
		"somebody who is no app":                       {caller: "x", via: token, instance: hello, reason: authz.ReasonEntitled},
		"somebody a rule names":                        {caller: "x", via: token, instance: hello, explicit: true},
		"somebody with a key":                          {caller: "x", via: key, instance: hello},
		"somebody with a key for it":                   {caller: "x", via: key, services: []string{"other", "hello"}, instance: hello},
		"somebody with a key for others":               {caller: "x", via: key, services: []string{"other"}, instance: hello, reason: authz.ReasonEntitled},
		"a key for others, and a rule":                 {caller: "x", via: key, services: []string{"other"}, instance: hello, explicit: true, reason: authz.ReasonEntitled},
		"an app with a key, that did not declare it":   {caller: "bound", via: key, instance: other, reason: authz.ReasonEntitled},
		"an app with a token and a key for others":     {caller: "free", via: token, services: []string{"other"}, instance: hello, reason: authz.ReasonEntitled},
		"somebody who is no app, in development":       {caller: "x", via: token, instance: hello, open: true},
		"nobody":                                       {instance: hello, from: far},
		"nobody, of what is for local consumers":       {instance: local, from: far, reason: authz.ReasonLocal},
		"nobody, from near":                            {instance: local, from: near},
		"nobody, from far, in development":             {instance: local, from: far, open: true},
		"an app, from far, of what is for local ones":  {caller: "bound", via: token, instance: local, from: far},
		"no app, from far, of what is for local ones":  {caller: "x", via: key, instance: local, from: far, reason: authz.ReasonLocal},
		"no app, from near, of what is for local ones": {caller: "x", via: key, instance: local, from: near},
		"nobody, of what is shared on request":         {instance: shared, reason: authz.ReasonSharing},
		"an app without a grant":                       {caller: "free", via: token, instance: shared, reason: authz.ReasonSharing},
		"a rule is no grant":                           {caller: "x", via: token, explicit: true, instance: shared, reason: authz.ReasonSharing},
		"an app with a grant":                          {caller: "bound", via: token, instance: shared},
		"a grant is no declaration":                    {caller: "bound", via: token, instance: table.Instance{Owner: "owner", Service: "other", Conditional: true}, reason: authz.ReasonEntitled},
		"the policy opens what the app would not":      {caller: "free", via: token, instance: shared, sharing: gateway.SharingOpen},
		"the policy shuts what the app would not":      {caller: "free", via: token, instance: hello, sharing: gateway.SharingConditional, reason: authz.ReasonSharing},
	} {
		t.Run(name, func(t *testing.T) {
			j := &authz.Judge{
				Settings: authz.Settings{Local: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Open: c.open},
				Granted:  func(owner, _, consumer string) bool { return owner == "owner" && consumer == "bound" },
			}
			k := &call.Call{Table: apps(), Policy: policy(c.sharing), Services: c.services}
			k.Policy.Spec.Owners = c.owners
			k.Info.Client = c.from
			if c.caller != "" {
				k.Caller = &identity.Caller{Subject: c.caller, Via: c.via}
			}
			reason, err := j.Permit(k, &c.instance, c.explicit)
			require.Equal(t, c.reason, reason)
			if c.reason == "" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, errs.Forbidden)
			}
			// A group of this one instance gets the same decision.
			c.instance.Endpoints = []*upstream.Endpoint{new(upstream.Endpoint)}
			g := table.NewGroup("s", []*table.Instance{&c.instance})
			for _, uniform := range []bool{true, false} {
				g.Uniform = uniform
				list, again, err := j.Select(k, g, c.explicit)
				require.Equal(t, c.reason, again)
				require.Equal(t, c.reason == "", err == nil)
				require.Equal(t, c.reason == "", err == nil && len(list) == 1)
			}
		})
	}
}

func TestTheInstancesACallMayGoTo(t *testing.T) {
	t.Parallel()
	one, two := new(upstream.Endpoint), new(upstream.Endpoint)
	g := table.NewGroup("hello", []*table.Instance{
		{Owner: "owner", Service: "hello", LocalOnly: true, Endpoints: []*upstream.Endpoint{one}},
		{Owner: "other", Service: "hello", Endpoints: []*upstream.Endpoint{two}},
	})
	j := &authz.Judge{Granted: func(string, string, string) bool { return false }}
	k := &call.Call{Table: apps(), Policy: policy("")}
	list, _, err := j.Select(k, g, false)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Same(t, two, list[0])
	k.Caller = &identity.Caller{Subject: "free"}
	list, _, err = j.Select(k, g, false)
	require.NoError(t, err)
	require.Len(t, list, 2)
	k.Policy = policy(gateway.SharingConditional)
	list, reason, err := j.Select(k, g, false)
	require.ErrorIs(t, err, errs.Forbidden)
	require.Equal(t, authz.ReasonSharing, reason)
	require.Empty(t, list)
}

func TestScopesAndRules(t *testing.T) {
	t.Parallel()
	rules, err := rule.Compile([]gateway.Rule{{Effect: gateway.Deny, Methods: []string{"DELETE"}}, {Effect: gateway.Allow, Methods: []string{"GET"}, Sources: []string{"0.0.0.0/0"}}, {Effect: gateway.Allow, Methods: []string{"HEAD"}}})
	require.NoError(t, err)
	app := &identity.Caller{Subject: "a", Scopes: []string{"mp1"}, Granted: []string{"mp1", "x"}}
	for name, c := range map[string]struct {
		scopes   []string
		def      gateway.Effect
		caller   *identity.Caller
		method   string
		explicit bool
		reason   string
	}{
		"allowed by a rule":            {def: gateway.Deny, caller: app, method: "GET", explicit: true},
		"a rule about no caller":       {def: gateway.Deny, caller: app, method: "HEAD"},
		"denied by a rule":             {def: gateway.Allow, caller: app, method: "DELETE", reason: authz.ReasonRule},
		"allowed as the rest is":       {def: gateway.Allow, caller: app, method: "PUT"},
		"denied as the rest is":        {def: gateway.Deny, caller: app, method: "PUT", reason: authz.ReasonRule},
		"nobody, by a rule":            {def: gateway.Deny, method: "GET", explicit: true},
		"a scope it has":               {scopes: []string{"mp1"}, caller: app, method: "GET", explicit: true},
		"a scope it was granted":       {scopes: []string{"mp1", "x"}, caller: app, method: "GET", explicit: true},
		"a scope it lacks":             {scopes: []string{"mp1", "ops"}, caller: app, method: "GET", reason: authz.ReasonScope},
		"scopes are asked of somebody": {scopes: []string{"ops"}, method: "GET", explicit: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := &table.Policy{Rules: rules, Spec: gateway.Policy{Scopes: c.scopes, Default: c.def}}
			explicit, reason, err := new(authz.Judge).Admit(p, &rule.Subject{Caller: c.caller, Method: c.method, Client: netip.MustParseAddr("192.0.2.1")})
			require.Equal(t, c.explicit, explicit)
			require.Equal(t, c.reason, reason)
			require.Equal(t, c.reason != "", err != nil)
		})
	}
}
