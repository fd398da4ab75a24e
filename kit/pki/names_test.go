package pki

import (
	"crypto"
	"crypto/x509"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNames(t *testing.T) {
	machine := func() []string { return []string{"edge-7", "192.0.2.7", "2001:db8::7"} }
	all := []string{"127.0.0.1", "192.0.2.7", "2001:db8::7", "::1", "edge-7", "localhost"}
	loopback := []string{"127.0.0.1", "::1", "localhost"}
	for _, tt := range []struct {
		name             string
		listeners, extra []string
		want             []string
	}{
		{"port only", []string{":8443"}, nil, all},
		{"all of IPv4", []string{"0.0.0.0:8443"}, nil, all},
		{"all of IPv6", []string{"[::]:8443"}, nil, all},
		{"all, in other forms", []string{"[::%lo]:1", "[::ffff:0.0.0.0]:1"}, nil, all},
		{"loopback", []string{"127.0.0.1:0"}, nil, loopback},
		{"loopback of IPv6", []string{"[::1]:0"}, nil, loopback},
		{"loopback by name", []string{"LocalHost:0"}, nil, loopback},
		{"another loopback address", []string{"127.0.0.5:0"}, nil, []string{"127.0.0.1", "127.0.0.5", "::1", "localhost"}},
		{"an address", []string{"192.0.2.9:8443"}, nil, []string{"192.0.2.9"}},
		{"an address in another form", []string{"[2001:DB8:0::9]:1", "[::ffff:192.0.2.9]:1"}, nil, []string{"192.0.2.9", "2001:db8::9"}},
		{"an address of an interface", []string{"[fe80::1%eth0]:1"}, nil, []string{"fe80::1"}},
		{"a name", []string{"MEP.example.com:https"}, nil, []string{"mep.example.com"}},
		{"several, without repetition", []string{":1", "127.0.0.1:2", "edge-7:3"}, nil, all},
		{"extra names", []string{"127.0.0.1:0"}, []string{"mep.example.com.", "*.Example.com", "192.0.2.1", "a_b", "localhost"},
			[]string{"*.example.com", "127.0.0.1", "192.0.2.1", "::1", "a_b", "localhost", "mep.example.com"}},
		{"below a domain", nil, []string{"*.mec.example", "*.instances.mec.example", "mec.example"},
			[]string{"*.instances.mec.example", "*.mec.example", "mec.example"}},
		{"nothing", nil, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := namesOf(tt.listeners, tt.extra, machine)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestNamesThatAreNone(t *testing.T) {
	for _, listener := range []string{"", "8443", "192.0.2.1", "::1:80:90", "a b:1", "*.example.com:1", "-a:1", "10.0.0.256:1"} {
		_, err := Names([]string{listener}, nil)
		require.ErrorContains(t, err, "listener", listener)
	}
	for _, extra := range []string{
		"", ".", "*.", "*", "a..b", "https://mep", "mep:443", "[::1]", "mép", "a.*.b", "-a", "a-", "10.0.0.256", "0.0.0.0", "::", "::%eth0", "::ffff:0.0.0.0",
		"a\x00", string(make([]byte, 300)), "0123456789012345678901234567890123456789012345678901234567890123",
	} {
		_, err := Names(nil, []string{extra})
		require.ErrorContains(t, err, "neither a host name nor an IP address", "%q", extra)
	}
}

func TestNamesOfThisMachine(t *testing.T) {
	names, err := Names([]string{":0"}, nil)
	require.NoError(t, err)
	require.Subset(t, names, []string{"localhost", "127.0.0.1", "::1"})
	require.True(t, slices.IsSorted(names))
}

func TestGlobalAddresses(t *testing.T) {
	var addrs []net.Addr
	for _, a := range []string{"127.0.0.1/8", "::1/128", "10.0.0.1/8", "fe80::1/64", "2001:db8::1/64", "169.254.1.1/16", "fd00::1/8", "224.0.0.1/4"} {
		ip, network, err := net.ParseCIDR(a)
		require.NoError(t, err)
		addrs = append(addrs, &net.IPNet{IP: ip, Mask: network.Mask})
	}
	require.Equal(t, []string{"10.0.0.1", "2001:db8::1", "fd00::1"}, global(addrs))
	for i := range 200 {
		addrs = append(addrs, &net.IPNet{IP: net.IPv4(10, 1, 0, byte(i)), Mask: net.CIDRMask(8, 32)})
	}
	require.Len(t, global(addrs), maxAddresses)
}

// FuzzNames checks that a certificate can be issued for whatever Names accepts, and covers it.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{"localhost", "*.example.com", "192.0.2.1", "::ffff:1.2.3.4", "fe80::1%eth0", "a_b.", "xn--mp-bja", "1.2.3"} {
		f.Add(seed)
	}
	now := time.Now()
	key, _, err := newKey()
	require.NoError(f, err)
	ca, _, err := issueCA(key, nil, now)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, name string) {
		names, err := Names(nil, []string{name})
		if err != nil {
			return
		}
		require.Len(t, names, 1)
		certPEM, err := issueServer("server", names, key, ca, key, now)
		require.NoError(t, err)
		certs, err := parseCertificates("server.crt", certPEM)
		require.NoError(t, err)
		require.True(t, covers(certs[0], names[0]), names[0])
		require.Empty(t, (&authority{}).due(certs[0], names, now))
		again, err := Names(nil, names)
		require.NoError(t, err)
		require.Equal(t, names, again)
	})
}

// FuzzParsePair checks that any files are either a pair that can be used or a fault that says what to do.
func FuzzParsePair(f *testing.F) {
	now := time.Now()
	key, keyPEM, err := newKey()
	require.NoError(f, err)
	_, certPEM, err := issueCA(key, nil, now)
	require.NoError(f, err)
	f.Add(certPEM, keyPEM)
	f.Add(keyPEM, certPEM)
	f.Add(certPEM[:200], keyPEM[:50])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, certPEM, keyPEM []byte) {
		p, err := parsePair("tls.crt", certPEM, "tls.key", keyPEM, now)
		if err != nil {
			require.Nil(t, p)
			var fault *Fault
			require.ErrorAs(t, err, &fault)
			require.NotEmpty(t, fault.Remedy)
			return
		}
		require.True(t, owns(p.cert.PrivateKey.(crypto.Signer), p.cert.Leaf))
		_, err = x509.ParseCertificate(p.cert.Certificate[0])
		require.NoError(t, err)
	})
}
