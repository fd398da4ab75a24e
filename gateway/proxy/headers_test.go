package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/gateway/proxy"
)

func TestWhatClientsMustNotSay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		underscores bool
		field       string
		stays       bool
	}{
		"the caller":                          {false, "X-Appinstanceid", false},
		"the caller, not canonical":           {false, "x-appinstanceID", false},
		"the caller with underscores":         {true, "X_appinstanceid", false},
		"the caller, all in lower case":       {true, "x_appinstanceid", false},
		"spelt in another way":                {true, "X-App-Instance-Id", false},
		"with dashes in a row":                {true, "X--Appinstanceid", false},
		"with dashes and more":                {true, "X-App-Instanceid-2", false},
		"another one of apps":                 {true, "X-App-Instance", true},
		"what proxies say of users":           {true, "X-Auth-Request-User", false},
		"something that begins like it":       {true, "X-Appinstanceid-2", false},
		"scopes":                              {true, "X-Consumer_scopes", false},
		"what Kong says":                      {true, "X_consumer-Username", false},
		"credentials":                         {true, "X-Credential-Identifier", false},
		"an authenticated user":               {true, "X-Authenticated-Userid", false},
		"an anonymous one":                    {true, "X_anonymous_consumer", false},
		"an address with underscores":         {true, "X_forwarded_for", false},
		"an address":                          {true, "X-Forwarded-For", true},
		"another field with underscores":      {true, "My_field", true},
		"another field where there are none":  {false, "My_field", false},
		"another field":                       {false, "X-My-Field", true},
		"a short one":                         {true, "X", true},
		"a very short one":                    {true, "X-", true},
		"something within a name":             {true, "My-X-Appinstanceid", true},
		"a field that begins with underscore": {true, "_x-Appinstanceid", true},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{c.field: {"v"}, "Other": {"o"}}
			proxy.Clean(h, true, c.underscores)
			require.Equal(t, c.stays, h[c.field] != nil)
			require.Equal(t, []string{"o"}, h["Other"])
		})
	}
}

func TestWhatOnlyProxiesMaySay(t *testing.T) {
	t.Parallel()
	all := func() http.Header {
		return http.Header{"X-Forwarded-Port": {"1"}, "True-Client-Ip": {"1"}, "X-Original-Url": {"/admin"}, "X-Forwarded-User": {"root"}, "Accept": {"a"}}
	}
	h := all()
	proxy.Clean(h, false, true)
	require.Equal(t, http.Header{"Accept": {"a"}}, h)
	h = all()
	proxy.Clean(h, true, true)
	require.Equal(t, http.Header{"X-Forwarded-Port": {"1"}, "True-Client-Ip": {"1"}, "Accept": {"a"}}, h, "and what takes another path nobody may")
	trailer := http.Header{"X-Appinstanceid": nil, "X_sum": nil, "X-Original-Url": nil, "X-Sum": nil}
	proxy.CleanTrailer(trailer)
	require.Equal(t, http.Header{"X-Sum": nil}, trailer)
}

func TestFieldsOfTheConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header http.Header
		gone   []string
		stay   []string
	}{
		"close":                    {http.Header{"Connection": {"close"}}, []string{"Connection"}, nil},
		"what it names":            {http.Header{"Connection": {"x-a , X-B", "X-C"}, "X-A": {"1"}, "X-B": {"1"}, "X-C": {"1"}, "X-D": {"1"}}, []string{"Connection", "X-A", "X-B", "X-C"}, []string{"X-D"}},
		"TE":                       {http.Header{"Connection": {"TE"}, "Te": {"trailers"}}, []string{"Connection"}, []string{"Te"}},
		"a WebSocket":              {http.Header{"Connection": {"keep-alive, upgrade"}, "Upgrade": {"WebSocket"}}, nil, []string{"Connection", "Upgrade"}},
		"h2c":                      {http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"x"}}, []string{"Connection", "Upgrade", "Http2-Settings"}, nil},
		"a WebSocket and h2c":      {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket, h2c"}}, []string{"Connection", "Upgrade"}, nil},
		"a WebSocket, then h2c":    {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket", "h2c"}}, []string{"Connection", "Upgrade"}, nil},
		"Upgrade, not named":       {http.Header{"Upgrade": {"websocket"}}, []string{"Upgrade"}, nil},
		"Upgrade, named otherwise": {http.Header{"Connection": {"xupgrade"}, "Upgrade": {"websocket"}}, []string{"Connection", "Upgrade"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Clean(c.header, false, true)
			for _, n := range c.gone {
				require.NotContains(t, c.header, n)
			}
			for _, n := range c.stay {
				require.Contains(t, c.header, n)
			}
		})
	}
	h := http.Header{"Connection": {"Upgrade, X-Appinstanceid"}, "Upgrade": {"websocket"}}
	proxy.Clean(h, false, true)
	require.Equal(t, []string{"Upgrade"}, h["Connection"], "and nothing else is named")
}

// TestNoSpellingOfIdentityIsLeft generates random spellings of the names.
func TestNoSpellingOfIdentityIsLeft(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		name := []byte(rapid.SampledFrom([]string{"x-appinstanceid", "x-consumer-scopes", "x-consumer-id", "x-credential-identifier"}).Draw(rt, "name"))
		for i, b := range name {
			switch {
			case b == '-' && rapid.Bool().Draw(rt, "underscore"):
				name[i] = '_'
			case b != '-' && rapid.Bool().Draw(rt, "capital"):
				name[i] = strings.ToUpper(string(b))[0]
			}
		}
		h := http.Header{string(name): {"forged"}}
		proxy.Clean(h, rapid.Bool().Draw(rt, "proxied"), rapid.Bool().Draw(rt, "underscores"))
		require.Empty(rt, h)
	})
}
