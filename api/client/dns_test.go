package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/dns"
)

// newDNS connects a client to a DNS server without a network.
func newDNS(t *testing.T, p *platform) *client.DNS {
	t.Helper()
	d, err := client.NewDNS("http://mep.example/", client.WithHTTPClient(&http.Client{Transport: p}))
	require.NoError(t, err)
	return d
}

func TestRequestsToTheDNSServerHaveTheirForm(t *testing.T) {
	www := dns.Record{Name: "www.example.", Type: dns.TypeA, TTL: 30, RData: []string{"192.0.2.1"}}
	viewed := dns.Record{Name: "*.example", Type: dns.TypeTXT, TTL: 30, RData: []string{"a"}, View: "ue"}
	const sent = `{"name":"www.example.","type":"A","ttl":30,"rData":["192.0.2.1"]}`
	const sentViewed = `{"name":"*.example","type":"TXT","ttl":30,"rData":["a"],"view":"ue"}`
	everybody := ""
	tests := map[string]struct {
		call         func(context.Context, *client.DNS) error
		answer       func(http.ResponseWriter)
		method, path string
		body         string
	}{
		"record": {
			func(ctx context.Context, d *client.DNS) error {
				rec, err := d.Record(ctx, "www.example.", dns.TypeA, "")
				require.Equal(t, www, rec.Info)
				require.Equal(t, `"7"`, rec.ETag)
				return err
			},
			answer(200, sent, "ETag", `"7"`), "GET", "/rrecord/www.example./A", "",
		},
		"create": {
			func(ctx context.Context, d *client.DNS) error { return d.Create(ctx, www) },
			answer(200, "created: 1\n", "Content-Type", "text/plain"), "POST", "/rrecord", "[" + sent + "]",
		},
		"create several": {
			func(ctx context.Context, d *client.DNS) error { return d.Create(ctx, www, viewed) },
			answer(200, "created: 2\n", "Content-Type", "text/plain"), "POST", "/rrecord", "[" + sent + "," + sentViewed + "]",
		},
		"replace": {
			func(ctx context.Context, d *client.DNS) error {
				etag, err := d.Replace(ctx, viewed)
				require.Equal(t, `"8"`, etag)
				return err
			},
			answer(200, "replaced\n", "Content-Type", "text/plain", "ETag", `"8"`), "PUT", "/rrecord/%2A.example/TXT?view=ue", sentViewed,
		},
		"delete": {
			func(ctx context.Context, d *client.DNS) error { return d.Delete(ctx, "www.example.", dns.TypeA, "") },
			answer(200, "deleted\n", "Content-Type", "text/plain"), "DELETE", "/rrecord/www.example./A", "",
		},
		"delete all": {
			func(ctx context.Context, d *client.DNS) error {
				n, err := d.DeleteAll(ctx, client.DNSFilter{Below: "example", View: &everybody})
				require.Equal(t, 3, n)
				return err
			},
			answer(200, `{"records":3}`), "DELETE", "/rrecord?below=example&view=", "",
		},
		"zones": {
			func(ctx context.Context, d *client.DNS) error {
				zones, err := d.Zones(ctx)
				require.Equal(t, []dns.Zone{{Name: "mec.example.", Serial: 9}}, zones)
				return err
			},
			answer(200, `[{"name":"mec.example.","serial":9,"names":0,"records":0}]`), "GET", "/zones", "",
		},
		"upstreams": {
			func(ctx context.Context, d *client.DNS) error {
				upstreams, err := d.Upstreams(ctx)
				require.Equal(t, "192.0.2.53:53", upstreams[0].Address)
				require.False(t, upstreams[0].FailingSince.IsZero())
				return err
			},
			answer(200, `[{"address":"192.0.2.53:53","zone":".","up":false,"failingSince":"2026-11-23T01:00:00Z"}]`), "GET", "/upstreams", "",
		},
		"flush all": {
			func(ctx context.Context, d *client.DNS) error { return flushed(d.Flush(ctx, "", true)) },
			answer(200, `{"entries":3}`), "POST", "/cache/flush", "",
		},
		"flush a name": {
			func(ctx context.Context, d *client.DNS) error { return flushed(d.Flush(ctx, "www.example", false)) },
			answer(200, `{"entries":3}`), "POST", "/cache/flush?name=www.example", "",
		},
		"flush below": {
			func(ctx context.Context, d *client.DNS) error { return flushed(d.Flush(ctx, "example", true)) },
			answer(200, `{"entries":3}`), "POST", "/cache/flush?below=example", "",
		},
		"trace": {
			func(ctx context.Context, d *client.DNS) error {
				trace, err := d.Trace(ctx, "www.example", "", netip.Addr{})
				require.Equal(t, dns.SourceUpstream, trace.Source)
				return err
			},
			answer(200, `{"name":"www.example.","source":"upstream","steps":[],"records":[]}`), "GET", "/trace?name=www.example", "",
		},
		"trace for somebody": {
			func(ctx context.Context, d *client.DNS) error {
				_, err := d.Trace(ctx, "www.example", "MX", netip.MustParseAddr("2001:db8::1"))
				return err
			},
			answer(200, `{}`), "GET", "/trace?client=2001%3Adb8%3A%3A1&name=www.example&type=MX", "",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &platform{answers: []func(http.ResponseWriter){tt.answer}}
			require.NoError(t, tt.call(t.Context(), newDNS(t, p)))
			require.Len(t, p.asked, 1)
			require.Equal(t, tt.method, p.asked[0].method)
			require.Equal(t, dns.Base+tt.path, p.asked[0].target)
			require.Equal(t, tt.body, p.asked[0].body)
		})
	}
}

func flushed(n int, err error) error {
	if err == nil && n != 3 {
		return errors.New("the number of entries is lost")
	}
	return err
}

func TestRecordsAreReadPageByPage(t *testing.T) {
	page := func(name string, header ...string) func(http.ResponseWriter) {
		return answer(200, `[{"name":"`+name+`1."},{"name":"`+name+`2."}]`, header...)
	}
	next := func(after string) string {
		return `<` + dns.Base + `/rrecord?after=` + after + `&limit=1000>; rel="next"`
	}
	pages := []func(http.ResponseWriter){page("a", "Link", next("x")), page("b", "Link", next("y")), page("c")}
	filter := client.DNSFilter{Name: "n", Below: "b", Type: "A", Zone: "z"}

	p := &platform{answers: pages}
	var names []string
	for rec, err := range newDNS(t, p).Records(t.Context(), filter) {
		require.NoError(t, err)
		names = append(names, rec.Name)
	}
	require.Equal(t, []string{"a1.", "a2.", "b1.", "b2.", "c1.", "c2."}, names)
	require.Len(t, p.asked, 3)
	const query = "below=b&limit=1000&name=n&type=A&zone=z"
	require.Equal(t, dns.Base+"/rrecord?"+query, p.asked[0].target)
	require.Equal(t, dns.Base+"/rrecord?after=y&"+query, p.asked[2].target)

	p = &platform{answers: pages}
	for _, err := range newDNS(t, p).Records(t.Context(), filter) {
		require.NoError(t, err)
		break
	}
	require.Len(t, p.asked, 1, "no more is asked for than is read")

	for name, answers := range map[string][]func(http.ResponseWriter){
		"refused":          {refusal(403)},
		"refused in time":  {page("a", "Link", next("x")), refusal(403)},
		"without an end":   {page("a", "Link", next("x"))},
		"something else":   {answer(200, "{}")},
		"unfinished":       {answer(200, `[{"name":"a."}`)},
		"no server at all": {answer(502, "<html>", "Content-Type", "text/html")},
	} {
		failures := 0
		for rec, err := range newDNS(t, &platform{answers: answers}).Records(t.Context(), filter) {
			if err != nil {
				require.Zero(t, rec)
				failures++
			}
		}
		require.Equal(t, 1, failures, name)
	}
}

func TestWhatIsAskedOfTheDNSServerIsRepeatedWhereThatIsSafe(t *testing.T) {
	rec := dns.Record{Name: "www.example.", Type: dns.TypeA}
	for name, tt := range map[string]struct {
		call     func(context.Context, *client.DNS) error
		attempts int
	}{
		"create":  {func(ctx context.Context, d *client.DNS) error { return d.Create(ctx, rec) }, 1},
		"replace": {func(ctx context.Context, d *client.DNS) error { _, err := d.Replace(ctx, rec); return err }, 4},
		"replace what was read": {func(ctx context.Context, d *client.DNS) error {
			_, err := d.Replace(ctx, rec, client.IfMatch(`"1"`))
			return err
		}, 1},
		"delete": {func(ctx context.Context, d *client.DNS) error { return d.Delete(ctx, rec.Name, rec.Type, "") }, 4},
		"delete all": {func(ctx context.Context, d *client.DNS) error {
			_, err := d.DeleteAll(ctx, client.DNSFilter{})
			return err
		}, 4},
		"flush": {func(ctx context.Context, d *client.DNS) error { _, err := d.Flush(ctx, "", true); return err }, 4},
		"trace": {func(ctx context.Context, d *client.DNS) error {
			_, err := d.Trace(ctx, "a", "", netip.Addr{})
			return err
		}, 4},
		"record":                   {func(ctx context.Context, d *client.DNS) error { _, err := d.Record(ctx, "a", "A", ""); return err }, 4},
		"what has no place at all": {func(ctx context.Context, d *client.DNS) error { return d.Delete(ctx, ".", "A", "") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{answers: []func(http.ResponseWriter){refusal(503, "Retry-After", "1")}}
				require.Error(t, tt.call(t.Context(), newDNS(t, p)))
				require.Len(t, p.asked, tt.attempts)
			})
		})
	}
	_, err := client.NewDNS("mep.example:8081")
	require.ErrorContains(t, err, "base URL of the platform")
	p := &platform{answers: []func(http.ResponseWriter){refusal(503, "Retry-After", "0"), refusal(404)}}
	require.NoError(t, newDNS(t, p).Delete(t.Context(), "a", "A", ""), "the first attempt did it")
}
