package rule_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/kit/identity"
)

const uuid = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"

func TestConditions(t *testing.T) {
	t.Parallel()
	app := &identity.Caller{Subject: uuid, Scopes: []string{"mp1"}, Granted: []string{"mp1", "calendar"}}
	subject := rule.Subject{Caller: app, Client: netip.MustParseAddr("192.0.2.7"), Method: "GET", Path: "/a/b%20c"}
	nobody := subject
	nobody.Caller = nil
	for name, c := range map[string]struct {
		rule    gateway.Rule
		subject rule.Subject
		matches bool
	}{
		"none":                           {gateway.Rule{}, subject, true},
		"none, nobody":                   {gateway.Rule{}, nobody, true},
		"consumer":                       {gateway.Rule{Consumers: []string{"x", uuid}}, subject, true},
		"consumer in capitals":           {gateway.Rule{Consumers: []string{"0A1B2C3D-4E5F-4A6B-8C7D-9E0F1A2B3C4D"}}, subject, true},
		"another consumer":               {gateway.Rule{Consumers: []string{"x"}}, subject, false},
		"consumer, nobody":               {gateway.Rule{Consumers: []string{uuid}}, nobody, false},
		"consumer \"\", nobody":          {gateway.Rule{Consumers: []string{""}}, nobody, false},
		"scope":                          {gateway.Rule{Scopes: []string{"ops", "mp1"}}, subject, true},
		"scope that is only granted":     {gateway.Rule{Scopes: []string{"calendar"}}, subject, true},
		"another scope":                  {gateway.Rule{Scopes: []string{"ops"}}, subject, false},
		"scope, nobody":                  {gateway.Rule{Scopes: []string{"mp1"}}, nobody, false},
		"network":                        {gateway.Rule{Sources: []string{"10.0.0.0/8", "192.0.2.0/24"}}, subject, true},
		"network with an odd end":        {gateway.Rule{Sources: []string{"192.0.2.9/24"}}, subject, true},
		"address":                        {gateway.Rule{Sources: []string{"192.0.2.7"}}, subject, true},
		"address, IPv4 in IPv6":          {gateway.Rule{Sources: []string{"::ffff:192.0.2.7"}}, subject, true},
		"another network":                {gateway.Rule{Sources: []string{"10.0.0.0/8"}}, subject, false},
		"all of IPv6":                    {gateway.Rule{Sources: []string{"::/0"}}, subject, false},
		"method":                         {gateway.Rule{Methods: []string{"POST", "GET"}}, subject, true},
		"another method":                 {gateway.Rule{Methods: []string{"POST"}}, subject, false},
		"path":                           {gateway.Rule{Paths: []string{"/x", "/a/*"}}, subject, true},
		"path, however it is spelt":      {gateway.Rule{Paths: []string{"/%61/b%20c"}}, subject, true},
		"rest of the path":               {gateway.Rule{Paths: []string{"/a/**"}}, subject, true},
		"another path":                   {gateway.Rule{Paths: []string{"/a"}}, subject, false},
		"one condition of several fails": {gateway.Rule{Consumers: []string{uuid}, Scopes: []string{"mp1"}, Sources: []string{"192.0.2.7"}, Methods: []string{"GET"}, Paths: []string{"/b"}}, subject, false},
		"all of several":                 {gateway.Rule{Consumers: []string{uuid}, Scopes: []string{"mp1"}, Sources: []string{"192.0.2.7"}, Methods: []string{"GET"}, Paths: []string{"/**"}}, subject, true},
	} {
		t.Run(name, func(t *testing.T) {
			c.rule.Effect = gateway.Deny
			rules, err := rule.Compile([]gateway.Rule{{Effect: gateway.Allow, Methods: []string{"NONE"}}, c.rule, {Effect: gateway.Allow}})
			require.NoError(t, err)
			s := c.subject
			effect, number := rule.Decide(rules, &s)
			if c.matches {
				require.Equal(t, gateway.Deny, effect)
				require.Equal(t, 1, number)
			} else {
				require.Equal(t, gateway.Allow, effect)
				require.Equal(t, 2, number)
			}
		})
	}
}

func TestNoRuleMatches(t *testing.T) {
	t.Parallel()
	effect, number := rule.Decide(nil, &rule.Subject{})
	require.Empty(t, effect)
	require.Equal(t, -1, number)
}

func TestThePathOfNoSegments(t *testing.T) {
	t.Parallel()
	rules, err := rule.Compile([]gateway.Rule{{Effect: gateway.Deny, Paths: []string{"/"}}})
	require.NoError(t, err)
	for _, path := range []string{"", "/"} {
		_, number := rule.Decide(rules, &rule.Subject{Path: path})
		require.Zero(t, number, "%q", path)
	}
}

func TestRulesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, r := range []gateway.Rule{{Sources: []string{"x"}}, {Sources: []string{"10.0.0.0/33"}}, {Sources: []string{"10.0.0.0:80"}}, {Paths: []string{"a"}}, {Paths: []string{"/**/a"}}} {
		_, err := rule.Compile([]gateway.Rule{{}, r})
		require.ErrorContains(t, err, "rules[1]: ")
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	nets, err := rule.Networks([]string{"10.1.2.3/8", "192.0.2.1", "2001:db8::/32", "::ffff:192.0.2.9"})
	require.NoError(t, err)
	for addr, within := range map[string]bool{
		"10.9.9.9": true, "11.0.0.0": false, "192.0.2.1": true, "192.0.2.2": false, "2001:db8:1::": true, "2001:db9::": false, "192.0.2.9": true,
	} {
		require.Equal(t, within, rule.Within(netip.MustParseAddr(addr), nets), addr)
	}
	require.False(t, rule.Within(netip.Addr{}, nets))
	nets, err = rule.Networks([]string{"::ffff:10.0.0.0/104"})
	if err == nil {
		require.True(t, rule.Within(netip.MustParseAddr("10.1.1.1"), nets), "a network of IPv4 addresses in IPv6 is one of IPv4 addresses, or none")
	}
}
