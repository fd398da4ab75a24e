package resolve_test

import (
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/listen"
)

func TestWhoPadsOverTLSGetsPaddedResponses(t *testing.T) {
	f := newFixture(t, nil)
	for _, name := range []string{"www.mec.example.", "www.example.org.", "nobody.mec.example.", "x.never.example.", "more.mec.example."} {
		for what, c := range map[string]struct {
			transport listen.Transport
			padded    bool
			want      bool
		}{
			"over TLS":            {listen.TLS, true, true},
			"over TLS, unpadded":  {listen.TLS, false, false},
			"over TCP":            {listen.TCP, true, false},
			"over UDP":            {listen.UDP, true, false},
			"over TLS, once more": {listen.TLS, true, true},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				q := query(name, dns.TypeA).SetEdns0(1232, false)
				if c.padded {
					q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 30)}}
				}
				resp := f.raw("10.0.0.1", c.transport, must(q.Pack()))
				require.Equal(t, c.want, len(resp)%468 == 0, "%d octets", len(resp))
				var m dns.Msg
				require.NoError(t, m.Unpack(resp))
			})
		}
	}
}
