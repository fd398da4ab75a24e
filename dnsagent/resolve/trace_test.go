package resolve_test

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/dns"
)

func TestTrace(t *testing.T) {
	f := newFixture(t, nil)
	trace := func(n, rrtype, client string) *api.Trace {
		tr, err := f.r.Trace(t.Context(), api.TraceRequest{Name: n, Type: rrtype, Client: client})
		require.NoError(t, err)
		return tr
	}
	tr := trace("second.mec.example.", "A", "10.1.0.1")
	require.Equal(t, "pool", tr.View)
	require.Equal(t, api.SourceTable, tr.Source)
	require.Equal(t, "mec.example.", tr.Zone)
	require.Equal(t, "NOERROR", tr.RCode)
	require.Len(t, tr.Records, 4)
	require.Equal(t, "rules of app id", tr.Records[3].Origin)
	tr = trace("out.mec.example.", "A", "10.0.0.1")
	require.Equal(t, []string{"rules of app id", "upstream", "upstream"}, []string{tr.Records[0].Origin, tr.Records[1].Origin, tr.Records[2].Origin})
	tr = trace("x.any.mec.example.", "A", "10.0.0.1")
	require.Equal(t, "*.any.mec.example.", tr.Wildcard)
	require.Equal(t, "rules of app id", tr.Records[0].Origin)
	require.Equal(t, api.SourceUpstream, trace("www.example.org.", "A", "10.0.0.1").Source)
	require.Equal(t, api.SourceCache, trace("www.example.org.", "A", "10.0.0.1").Source)
	require.Equal(t, "NXDOMAIN", trace("nobody.mec.example.", "A", "10.0.0.1").RCode)
	require.Contains(t, strings.Join(trace("www.example.org.", "A", "192.0.2.9").Steps, "\n"), "allowRecursion")
	require.Contains(t, strings.Join(trace("www.mec.example.", "A", "203.0.113.9").Steps, "\n"), "allowQuery")
	require.Equal(t, "TYPE65535", trace("www.mec.example.", "TYPE65535", "10.0.0.1").Type)
	require.Equal(t, "TYPE65280", trace("www.mec.example.", "TYPE65280", "10.0.0.1").Type)
	for _, bad := range []api.TraceRequest{{Name: "a.", Type: "A", Client: "x"}, {Name: "a.", Type: "NO", Client: "10.0.0.1"}, {Name: "a..b", Type: "A", Client: "10.0.0.1"}} {
		_, err := f.r.Trace(t.Context(), bad)
		require.Error(t, err)
	}
}

func TestTheTraceSaysWhyThereIsNoAnswer(t *testing.T) {
	f := newFixture(t, nil)
	tests := map[string]struct{ name, want string }{
		"of forwarders":                         {"refused.example.org.", "forwarded, not answered: no upstream had an answer: " + f.up.addr + ": the response is no answer: it has the code REFUSED"},
		"of those a name of the table leads to": {"refused.mec.example.", "forwarded, not answered: no upstream had an answer"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tr, err := f.r.Trace(t.Context(), api.TraceRequest{Name: tt.name, Type: "A", Client: "10.0.0.1"})
			require.NoError(t, err)
			require.Equal(t, "SERVFAIL", tr.RCode)
			require.Contains(t, strings.Join(tr.Steps, "\n"), tt.want)
			require.NotContains(t, strings.Join(tr.Steps, "\n"), "answered from")
		})
	}
	tr, err := f.r.Trace(t.Context(), api.TraceRequest{Name: "www.example.org.", Type: dns.TypeToString[dns.TypeA], Client: "10.0.0.1"})
	require.NoError(t, err)
	require.Contains(t, tr.Steps, "forwarded, answered from the upstream", "a failure is not that of the next question")
}
