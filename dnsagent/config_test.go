package dnsagent

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/settings"
)

func load(t *testing.T, file string, flags map[string]string) (*DaemonConfig, error) {
	t.Helper()
	src := settings.Sources{Flags: map[string]string{"etcd-endpoints": "unused"}}
	maps.Copy(src.Flags, flags)
	if file != "" {
		src.File = filepath.Join(t.TempDir(), "config.yaml")
		require.NoError(t, os.WriteFile(src.File, []byte(file), 0o600))
	}
	return Daemon().Load(src)
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for flag, c := range map[string]struct{ value, want string }{
		"dns-listen":            {"53", "is not host:port"},
		"dns-management-listen": {"", "is not host:port"},
		"dns-tls-listen":        {"x", "is not host:port"},
		"dns-public-url":        {"edge1.example", "not an absolute"},
		"dns-zones":             {"a..b", "is not a domain name"},
		"dns-service-zone":      {"a..b", "is not a domain name"},
		"dns-hostmaster":        {"a..b", "is not a domain name"},
		"dns-nameservers":       {"ns.example=nowhere", "is not name=address"},
		"dns-ttl":               {"2000000h", "dns.ttl must be 0s"},
		"dns-negative-ttl":      {"4h", "dns.negativeTtl must be 0s to 3h"},
		"dns-udp-size":          {"65535", "512 to 4096"},
		"dns-forward":           {"forwarder", "dns.forward"},
		"dns-forward-timeout":   {"0s", "at least 500ms"},
		"dns-allow-query":       {"10.0.0.0/40", "neither a network"},
		"dns-allow-recursion":   {"everybody", "neither a network"},
		"dns-rate-exempt":       {"fe80::1%eth0", "neither a network"},
		"dns-rate-responses":    {"-1", "must be 0 to"},
		"dns-cookie-secret-file": {
			"/nonexistent", "dns.cookieSecretFile",
		},
		"dns-lame-duck": {"4s", "must be 0s to 3s"},
	} {
		_, err := load(t, "", map[string]string{flag: c.value})
		if flag == "dns-forward-timeout" {
			c.want = "dns.forwardTimeout must be 500ms"
		}
		require.ErrorContains(t, err, c.want, flag)
	}
	_, err := load(t, "", map[string]string{"dns-listen": Off})
	require.ErrorContains(t, err, "off is for mep")
	_, err = load(t, "", map[string]string{"dev": "true", "dns-tls-listen": "127.0.0.1:853"})
	require.ErrorContains(t, err, "certificates")
	_, err = load(t, "", map[string]string{"dev": "true", "dns-listen": "0.0.0.0:53"})
	require.ErrorContains(t, err, "is not a loopback address")
	_, err = load(t, "", nil)
	require.NoError(t, err, "the defaults are valid")

	for what, c := range map[string]struct{ file, want string }{
		"a view without clients":  {"dns.views: [{name: a}]", "has no clients"},
		"a view twice":            {"dns.views: [{name: a, clients: [10.0.0.0/8]}, {name: a, clients: [10.0.0.0/9]}]", "is there twice"},
		"a network twice":         {"dns.views: [{name: a, clients: [10.0.0.0/8]}, {name: b, clients: [10.0.0.1/8]}]", "dns.views"},
		"a bad name":              {"dns.views: [{name: A b, clients: [10.0.0.0/8]}]", "is not 1 to 63"},
		"an app that is none":     {"dns.views: [{name: a, clients: [10.0.0.0/8], apps: [x]}]", "is not the UUID"},
		"services among others":   {"dns.zones: [mec.example]\ndns.serviceZone: Mec.example.", "zone of its own"},
		"services around others":  {"dns.zones: [a.svc.example]\ndns.serviceZone: svc.example", "zone of its own"},
		"forwarding what is ours": {"dns.zones: [mec.example]\ndns.forwardZones: [{zone: corp.mec.example, forward: [192.0.2.1]}]", "would never be forwarded"},
		"a zone twice":            {"dns.forwardZones: [{zone: a.example}, {zone: A.example.}]", "is there twice"},
		"the root twice":          {"dns.forward: [192.0.2.1]\ndns.forwardZones: [{zone: .}]", "is there twice"},
		"no zone":                 {"dns.forwardZones: [{forward: [192.0.2.1]}]", "is not a domain name"},
	} {
		_, err := load(t, c.file, nil)
		require.ErrorContains(t, err, c.want, what)
	}
}

func TestSettingsBecomeZonesAndViews(t *testing.T) {
	cfg, err := load(t, `
dns.zones: [mec.example, 2.0.192.in-addr.arpa., MEC.example.]
dns.serviceZone: svc.mec.example
dns.nameservers: [ns1.mec.example=192.0.2.53, ns1.mec.example=2001:db8::53, ns2.example.net]
dns.views:
  - {name: pool, clients: [10.1.0.0/16, 2001:db8::1], apps: [5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f], names: ["*.video.example"]}
`, nil)
	require.NoError(t, err)
	rc, err := cfg.DNS.records()
	require.NoError(t, err)
	require.Len(t, rc.Table.Zones, 3)
	require.Len(t, rc.Table.Zones[0].Nameservers, 2)
	require.Len(t, rc.Static, 2)
	require.Equal(t, "svc.mec.example.", rc.ServiceZone.String())
	require.Equal(t, "video.example.", rc.Views[0].Names[0].String())
	views, err := cfg.DNS.views()
	require.NoError(t, err)
	require.NotNil(t, views)
}
