package rest_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/dns"
)

func TestWhatTheServerTells(t *testing.T) {
	a := start(t)
	require.Equal(t, "[]", a.ask("GET", dns.Base+"/zones", "").body)
	require.Equal(t, "[]", a.ask("GET", dns.Base+"/upstreams", "").body)
	a.server.zones = []dns.Zone{{Name: "mec.example.", Serial: 7, Names: 2, Records: 3}}
	a.server.upstreams = []dns.Upstream{
		{Address: "192.0.2.53:53", Zone: ".", Up: true, Queries: 9},
		{Address: "192.0.2.54:53", Zone: "corp.", FailingSince: time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC), LastError: "timeout", Queries: 2, Failures: 2},
	}
	require.JSONEq(t, `[{"name":"mec.example.","serial":7,"names":2,"records":3}]`, a.ask("GET", dns.Base+"/zones", "").body)
	require.JSONEq(t, `[{"address":"192.0.2.53:53","zone":".","up":true,"queries":9,"failures":0},
		{"address":"192.0.2.54:53","zone":"corp.","up":false,"failingSince":"2026-11-23T01:00:00Z","lastError":"timeout","queries":2,"failures":2}]`,
		a.ask("GET", dns.Base+"/upstreams", "").body)
	a.ask("GET", dns.Base+"/zones?x=1", "").refused(t, 400)
	a.ask("GET", dns.Base+"/upstreams?x=1", "").refused(t, 400)
	a.ask("PUT", dns.Base+"/zones", "").refused(t, 405)
}

func TestTheCacheIsFlushed(t *testing.T) {
	a := start(t)
	for query, want := range map[string][]any{
		"":                          {"", true},
		"?name=WWW.example":         {"www.example.", false},
		"?below=Example.":           {"example.", true},
		"?below=.":                  {"", true},
		"?name=":                    nil,
		"?below=":                   nil,
		"?name=a..b":                nil,
		"?name=a.&below=b.":         nil,
		"?name=a.&name=b.":          nil,
		"?all=true":                 nil,
		`?name=odd%5C046name.b%20c`: {`odd\.name.b\ c.`, false},
	} {
		a.server.flushed = nil
		got := a.ask("POST", dns.Base+"/cache/flush"+query, "")
		require.Equal(t, want, a.server.flushed, query)
		if want == nil {
			got.refused(t, 400)
			continue
		}
		var n dns.Flushed
		got.json(t, &n)
		require.Equal(t, 3, n.Entries)
	}
	a.ask("POST", dns.Base+"/cache/flush?name=fails", "").refused(t, 500)
}

func TestAnAnswerIsExplained(t *testing.T) {
	a := start(t)
	for query, want := range map[string]dns.TraceRequest{
		"?name=WWW.example":                                 {Name: "www.example.", Type: "A", Client: "192.0.2.1"},
		"?name=a.&type=mx&client=2001:DB8::1":               {Name: "a.", Type: "MX", Client: "2001:db8::1"},
		"?name=.&type=TYPE65280&client=::ffff:198.51.100.1": {Name: ".", Type: "TYPE65280", Client: "198.51.100.1"},
		"?name=a.&type=type65535":                           {Name: "a.", Type: "TYPE65535", Client: "192.0.2.1"},
		"?name=a.&type=type28":                              {Name: "a.", Type: "AAAA", Client: "192.0.2.1"},
	} {
		var got dns.Trace
		a.ask("GET", dns.Base+"/trace"+query, "").json(t, &got)
		require.Equal(t, want, a.server.traced, query)
		require.Equal(t, want.Name, got.Name)
		require.NoError(t, errOf(netip.ParseAddr(got.Client)))
	}
	for _, query := range []string{
		"", "?type=A", "?name=", "?name=a..b", "?name=a.&type=", "?name=a.&type=X", "?name=a.&type=TYPE", "?name=a.&type=TYPE65536", "?name=a.&type=NONE", "?name=a.&type=Reserved",
		"?name=a.&client=host", "?name=a.&client=fe80::1%25eth0", "?name=a.&view=ue", "?name=refused",
	} {
		a.ask("GET", dns.Base+"/trace"+query, "").refused(t, 400)
	}
}

func errOf[T any](_ T, err error) error { return err }
