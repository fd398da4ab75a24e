package forward

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/wire"
)

func TestUpstreamsAsTheyAreWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(file, []byte("# servers\nsearch example\nnameserver 192.0.2.7\nnameserver fe80::1%eth0\noptions rotate\n"), 0o600))
	tests := map[string][]string{
		"192.0.2.1":                          {"192.0.2.1:53"},
		"192.0.2.1:5353":                     {"192.0.2.1:5353"},
		"2001:db8::1":                        {"[2001:db8::1]:53"},
		"[2001:db8::1]":                      {"[2001:db8::1]:53"},
		"[2001:db8::1]:5353":                 {"[2001:db8::1]:5353"},
		"::ffff:192.0.2.1":                   {"192.0.2.1:53"},
		"tls://192.0.2.1":                    {"tls://192.0.2.1:853"},
		"tls://192.0.2.1#dns.example":        {"tls://192.0.2.1:853#dns.example"},
		"tls://[2001:db8::1]:53#dns.example": {"tls://[2001:db8::1]:53#dns.example"},
		file:                                 {"192.0.2.7:53", "[fe80::1%eth0]:53"},
	}
	for given, want := range tests {
		t.Run(given, func(t *testing.T) {
			list, err := ParseUpstreams([]string{given})
			require.NoError(t, err)
			var got []string
			for _, u := range list {
				got = append(got, u.String())
			}
			require.Equal(t, want, got)
			again, err := ParseUpstreams(got)
			require.NoError(t, err)
			require.Equal(t, list, again)
		})
	}
}

func TestUpstreamsThatAreWrong(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(empty, []byte("search example\n"), 0o600))
	odd := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(odd, []byte("nameserver 0.0.0.0\n"), 0o600))
	for _, given := range []string{
		"", "dns.example", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:53:53", "2001:db8::1]:53", "[192.0.2.1]", "0.0.0.0", "::",
		"224.0.0.251", "ff02::fb", "255.255.255.255", "tls://", "tls://dns.example", "tls://192.0.2.1#", "tls://192.0.2.1#a..b", "https://192.0.2.1/",
		"192.0.2.1#dns.example", empty, odd, "/nonexistent/resolv.conf",
	} {
		t.Run(given, func(t *testing.T) {
			_, err := ParseUpstreams([]string{"192.0.2.1", given})
			require.Error(t, err)
		})
	}
}

func FuzzParseUpstreams(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "[2001:db8::1]:53", "tls://192.0.2.1#dns.example", "tls://[fe80::1%a]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s != "" && s[0] == '/' {
			return
		}
		list, err := ParseUpstreams([]string{s})
		if err != nil {
			return
		}
		again, err := ParseUpstreams([]string{list[0].String()})
		require.NoError(t, err)
		require.Equal(t, list, again)
	})
}

func TestSettingsThatAreWrong(t *testing.T) {
	up := Upstream{Addr: netip.MustParseAddrPort("192.0.2.1:53")}
	long := wire.Root
	for range 3 {
		long, _ = long.Child("a234567890123456789012345678901234567890123456789012345678901")
	}
	tests := map[string]Config{
		"a zone twice":                {Zones: append(rootZone(up), rootZone()...)},
		"a zone with a name too long": {Zones: []Zone{{Name: long, Upstreams: []Upstream{up}}}},
		"a zone without a name":       {Zones: []Zone{{Upstreams: []Upstream{up}}}},
		"an upstream without address": {Zones: rootZone(Upstream{})},
		"too small a size":            {Zones: rootZone(up), UDPSize: 511},
		"too large a size":            {Zones: rootZone(up), UDPSize: 4097},
		"this server as its own upstream": {
			Zones: rootZone(up), OwnAddr: func(a netip.AddrPort) bool { return a == up.Addr },
		},
	}
	for name, cfg := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := New(cfg, nil, nil)
			require.Error(t, err)
			s := newSubject(t, Config{Zones: rootZone(up)})
			_, err = s.Prepare(cfg)
			require.Error(t, err)
		})
	}
	t.Run("an upstream twice is one", func(t *testing.T) {
		s := newSubject(t, Config{Zones: rootZone(up, up)})
		require.Len(t, s.Upstreams(), 1)
	})
}
