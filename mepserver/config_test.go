package mepserver_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/mepserver"
)

func TestTheDomainOfServicesLeavesTheGatewayOut(t *testing.T) {
	t.Parallel()
	spec := mepserver.Daemon()
	for name, x := range map[string]struct{ domain, url, want string }{
		"none":                        {"", "https://gw.mec.example:8443", ""},
		"the gateway beside it":       {"mec.example", "https://gw.example:8443", ""},
		"the gateway is the domain":   {"mec.example", "https://mec.example:8443", ""},
		"the gateway at an address":   {"mec.example", "https://[2001:db8::7]:8443", ""},
		"the gateway nowhere":         {"mec.example", "", ""},
		"a name that ends like it":    {"mec.example", "https://gwmec.example", ""},
		"the gateway below it":        {"mec.example", "https://gw.MEC.example:8443", "gateway.publicUrl: its host gw.MEC.example is below gateway.serviceDomain"},
		"far below it":                {"mec.example.", "https://a.b.mec.example.", "is below gateway.serviceDomain"},
		"a domain that is an address": {"10.0.0.7", "https://gw.example", "gateway.serviceDomain must be a domain"},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg mepserver.DaemonConfig
			require.NoError(t, settings.Load(&cfg, settings.Sources{Flags: map[string]string{
				"gateway-service-domain": x.domain, "gateway-public-url": x.url, "etcd-endpoints": "http://127.0.0.1:2379",
			}}, nil))
			err := spec.Validate(&cfg)
			if x.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, x.want)
		})
	}
	var cfg mepserver.DaemonConfig
	require.NoError(t, settings.Load(&cfg, settings.Sources{Flags: map[string]string{
		"gateway-service-domain": "mec.example", "public-url": "https://mp1.mec.example:8088", "etcd-endpoints": "http://127.0.0.1:2379",
	}}, nil))
	require.ErrorContains(t, spec.Validate(&cfg), "publicUrl: its host mp1.mec.example is below gateway.serviceDomain")
}
