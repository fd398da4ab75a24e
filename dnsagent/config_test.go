package dnsagent

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/protect"
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
		"forwarding to itself":    {"dns.listen: 192.0.2.1:53\ndns.forward: [192.0.2.1]", "is this server itself, which listens there by dns.listen"},
		"a zone of its own":       {"dns.forwardZones: [{zone: a.example, forward: [192.0.2.53, 127.0.0.53]}]", "zone a.example.: upstream 127.0.0.53:53 is this server itself"},
		"itself over TLS":         {"dns.tlsListen: 192.0.2.1:853\ndns.forward: [\"tls://192.0.2.1\"]", "which listens there by dns.tlsListen"},
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

func TestForwardersBesideTheListenersAreAccepted(t *testing.T) {
	for what, file := range map[string]string{
		"another port":              "dns.listen: 127.0.0.1:53\ndns.forward: [\"127.0.0.1:5353\"]",
		"another address":           "dns.listen: 192.0.2.1:53\ndns.forward: [192.0.2.2, 127.0.0.53]",
		"a port that is not known":  "dns.listen: 127.0.0.1:0\ndns.forward: [127.0.0.1]",
		"a host that is not looked": "dns.listen: localhost.invalid:53\ndns.forward: [127.0.0.1]",
		"another machine":           "dns.forward: [192.0.2.53]",
	} {
		_, err := load(t, file, nil)
		require.NoError(t, err, what)
	}
	_, err := load(t, "dns.forward: [\"127.0.0.1:8053\"]", map[string]string{"dev": "true"})
	require.ErrorContains(t, err, "is this server itself", "where --dev listens")
}

// TestWhoMayDoWhat checks that an empty list means nobody, wherever it is given, for all three lists.
func TestWhoMayDoWhat(t *testing.T) {
	near, device, stranger := "127.0.0.1", "10.45.0.23", "203.0.113.9"
	flags := func(name string) map[string]string { return map[string]string{name: ""} }
	tests := map[string]struct {
		file                        string
		flags                       map[string]string
		query, recursion, unlimited []string
	}{
		"by default": {
			query: []string{near, device, stranger}, recursion: []string{near, device}, unlimited: []string{near, device},
		},
		"nobody may ask":               {file: "dns.allowQuery: []", recursion: []string{near, device}, unlimited: []string{near, device}},
		"nobody may ask, by a flag":    {flags: flags("dns-allow-query"), recursion: []string{near, device}, unlimited: []string{near, device}},
		"nobody is forwarded for":      {file: "dns.allowRecursion: []", query: []string{near, device, stranger}},
		"nobody, by a flag":            {flags: flags("dns-allow-recursion"), query: []string{near, device, stranger}},
		"nobody is exempt":             {file: "dns.rate.exempt: []", query: []string{near, device, stranger}, recursion: []string{near, device}},
		"nobody is exempt, by a flag":  {flags: flags("dns-rate-exempt"), query: []string{near, device, stranger}, recursion: []string{near, device}},
		"the exempt are those named":   {file: "dns.rate.exempt: [203.0.113.9]", query: []string{near, device, stranger}, recursion: []string{near, device}, unlimited: []string{stranger}},
		"the exempt are those, too":    {file: "dns.allowRecursion: [10.0.0.0/8]\ndns.rate.exempt: [dns.allowRecursion, 203.0.113.9]", query: []string{near, device, stranger}, recursion: []string{device}, unlimited: []string{device, stranger}},
		"half of the world may ask":    {file: "dns.allowQuery: [\"::/0\"]", recursion: []string{near, device}, unlimited: []string{near, device}},
		"all may ask, and be answered": {file: "dns.allowRecursion: [0.0.0.0/0, \"::/0\"]", query: []string{near, device, stranger}, recursion: []string{near, device, stranger}, unlimited: []string{near, device, stranger}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg, err := load(t, tt.file, tt.flags)
			require.NoError(t, err)
			p, err := new(Agent).policy(&cfg.DNS)
			require.NoError(t, err)
			in := func(m *protect.Map[struct{}]) (list []string) {
				for _, client := range []string{near, device, stranger} {
					if _, ok := m.Lookup(netip.MustParseAddr(client)); ok || m == nil {
						list = append(list, client)
					}
				}
				return list
			}
			require.Equal(t, tt.query, in(p.Query), "who may ask")
			require.Equal(t, tt.recursion, in(p.Recursion), "who is forwarded for")
			require.Equal(t, tt.unlimited, in(p.Unlimited), "who is not limited")
			require.NotNil(t, p.Recursion)
			require.NotNil(t, p.Unlimited)
		})
	}
	cfg, err := load(t, "", nil)
	require.NoError(t, err)
	p, err := new(Agent).policy(&cfg.DNS)
	require.NoError(t, err)
	require.Nil(t, p.Query, "nothing is looked up when all may ask")
}
