package doctor

import (
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCertificates(t *testing.T) {
	expired := func(t *testing.T, f *fixture) {
		f.remove(t, "pki")
		f.issue(t, func() time.Time { return time.Now().Add(-91 * day) })
	}
	each(t, checkCertificates, map[string]broken{
		"its own has expired, and nobody was there to renew it": {
			by: expired, level: Warn, finding: "server.crt expired on", remedy: "start the platform",
		},
		"its own has expired while it runs": {of: running, by: expired, finding: "server.crt expired on", remedy: "its log says why"},
		"its own is not renewed": {
			of: running, by: func(t *testing.T, f *fixture) {
				f.remove(t, "pki")
				f.issue(t, func() time.Time { return time.Now().Add(-90*day + time.Hour) })
			},
			level: Warn, finding: "server.crt expires on", remedy: "its log says why",
		},
		"its own is not for a name": {
			by:    func(_ *testing.T, f *fixture) { f.Common.TLSNames = []string{"mec.example", "192.0.2.1"} },
			level: Warn, finding: "server.crt is not for 192.0.2.1, mec.example", remedy: "start the platform",
		},
		"its own is damaged": {
			by:    func(t *testing.T, f *fixture) { f.write(t, "pki/server.crt", "hello") },
			level: Warn, finding: "server.crt holds no certificate", remedy: "start the platform",
		},
		"its own has another key": {
			of:      running,
			by:      func(t *testing.T, f *fixture) { f.write(t, "pki/server.key", read(t, f.path("pki/ca.key"))) },
			finding: "server.key is not the key of", remedy: "its log says why",
		},
		"its own key can be read": {
			by:    func(t *testing.T, f *fixture) { f.chmod(t, "pki/server.key", 0o644) },
			level: Warn, finding: "server.key has the permissions 0644", remedy: "chmod 600",
		},
		"the CA's key can be read": {
			by:      func(t *testing.T, f *fixture) { f.chmod(t, "pki/ca.key", 0o644) },
			finding: "ca.key has the permissions 0644", remedy: "chmod 600",
		},
		"the CA's key is missing": {
			by:      func(t *testing.T, f *fixture) { f.remove(t, "pki/ca.key") },
			finding: "ca.key is missing", remedy: "restore ca.crt and ca.key",
		},
		"the CA's certificate is missing": {
			by:    func(t *testing.T, f *fixture) { f.remove(t, "pki/ca.crt") },
			level: Warn, finding: "ca.crt is missing", remedy: "from ca.key",
		},
		"the CA is gone": {
			by:    func(t *testing.T, f *fixture) { f.remove(t, "pki/ca.crt", "pki/ca.key") },
			level: Warn, finding: "makes a new CA", remedy: "restore both",
		},
		"the CA vanishes while the platform runs": {
			of: running, by: func(t *testing.T, f *fixture) { f.remove(t, "pki/ca.crt", "pki/ca.key") },
			finding: "have vanished", remedy: "restore both",
		},
		"the CA has another key": {
			by:      func(t *testing.T, f *fixture) { f.write(t, "pki/ca.key", read(t, f.path("pki/server.key"))) },
			finding: "ca.key is not the key of", remedy: "restore ca.crt and ca.key",
		},
		"the CA's key is another user's": {
			by:      func(_ *testing.T, f *fixture) { f.refuse(f.path("pki/ca.key")) },
			finding: "ca.key may not be read by user", remedy: "as the user of the platform",
		},
		"a name that cannot be in a certificate": {
			by:      func(_ *testing.T, f *fixture) { f.Common.TLSNames = []string{"https://mec.example"} },
			finding: "tls.names cannot be used", remedy: "correct it",
		},
		"clients come by a name it is not for": {
			by:      func(_ *testing.T, f *fixture) { f.Auth.PublicURL = "https://mec.example:10443" },
			finding: "is not for mec.example, the host of auth.publicUrl", remedy: "tls.names",
		},
		"consumers come by a name it is not for": {
			by:      func(_ *testing.T, f *fixture) { f.Server.GatewayURL = "https://mec.example:8443" },
			finding: "is not for mec.example, the host of gateway.publicUrl", remedy: "tls.names",
		},
		"managers of DNS come by a name it is not for": {
			by:      func(_ *testing.T, f *fixture) { f.DNS.PublicURL = "https://mec.example:8081" },
			finding: "is not for mec.example, the host of dns.publicUrl", remedy: "tls.names",
		},
		"clients come through a proxy": {
			by: func(_ *testing.T, f *fixture) {
				f.Server.PublicURL, f.Common.Identity.Proxies = "https://mec.example", []string{"10.0.0.0/8"}
			},
			level: Warn, finding: "is not for mec.example, the host of publicUrl", remedy: "a proxy that shows clients",
		},
		"services have host names it is not for": {
			by:    func(_ *testing.T, f *fixture) { f.Gateway.ServiceDomain = "MEC.example." },
			level: Warn, finding: "is not for *.mec.example and *.instances.mec.example, by which gateway.serviceDomain", remedy: "tls.names",
		},
		"a given one is not for the host names of services": {
			by: func(t *testing.T, f *fixture) {
				f.keep(t, func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "*.instances.mec.example") })
				f.Gateway.ServiceDomain = "mec.example"
			},
			level: Warn, finding: "is not for *.mec.example, by which", remedy: "issued for these names too",
		},
		"a given one is not for the host names of instances": {
			by: func(t *testing.T, f *fixture) {
				f.keep(t, func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "*.mec.example") })
				f.Gateway.ServiceDomain = "mec.example"
			},
			level: Warn, finding: "is not for *.instances.mec.example, by which", remedy: "issued for these names too",
		},
		"a given one has expired": {
			by: func(t *testing.T, f *fixture) {
				f.keep(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
			},
			finding: "tls.crt expired on", remedy: "replace it",
		},
		"a given one expires in ten days": {
			by: func(t *testing.T, f *fixture) {
				f.keep(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10 * day) })
			},
			level: Warn, finding: "tls.crt expires on", remedy: "replace it",
		},
		"a given one is missing": {
			by: func(t *testing.T, f *fixture) {
				f.keep(t, nil)
				require.NoError(t, os.Remove(f.Common.TLSCert))
			},
			finding: "tls.crt does not exist", remedy: "correct the path",
		},
		"a given one has another key": {
			by: func(t *testing.T, f *fixture) {
				_, f.Common.TLSKey = f.keep(t, nil).issue(t, nil)
			},
			finding: "tls.key is not the key of", remedy: "its own key",
		},
		"a given one is not for the public name": {
			by: func(t *testing.T, f *fixture) {
				f.keep(t, nil)
				f.Auth.PublicURL = "https://mec.example"
			},
			finding: "is not for mec.example, the host of auth.publicUrl", remedy: "issued for that name too",
		},
		"a given one is not for the address of a listener": {
			by: func(t *testing.T, f *fixture) {
				f.keep(t, nil)
				f.Auth.Listen = "127.0.0.2:0"
			},
			level: Warn, finding: "is not for 127.0.0.2, by which clients reach auth.listen", remedy: "set auth.publicUrl",
		},
		"the CA of clients is missing": {
			by:      func(_ *testing.T, f *fixture) { f.Common.TLSClientCAs = []string{"/nowhere/clients.crt"} },
			finding: "/nowhere/clients.crt does not exist", remedy: "correct the path",
		},
		"the CA of clients is none": {
			by: func(t *testing.T, f *fixture) {
				cert, _ := newCA(t).issue(t, nil)
				f.Common.TLSClientCAs = []string{cert}
			},
			finding: "which is not the certificate of a CA", remedy: "put the certificate of the CA",
		},
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func TestACertificateForTheHostNamesOfServices(t *testing.T) {
	f := planned(t)
	f.keep(t, func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "*.mec.example", "*.instances.mec.example") })
	f.Gateway.ServiceDomain = "mec.example"
	x := &examination{Installation: f.Installation, host: f.host}
	found := &findings{}
	x.certificates(t.Context(), found)
	require.Equal(t, OK, found.worst(), "%+v", found)
}

func TestNamesByWhichAListenerIsReached(t *testing.T) {
	machine, err := os.Hostname()
	require.NoError(t, err)
	for name, x := range map[string]struct {
		listener  listener
		publicURL string
		want      string
	}{
		"an address":              {listener: listener{name: "mp1", addr: "192.0.2.1:8088"}, want: "192.0.2.1"},
		"a name":                  {listener: listener{name: "auth", addr: "mec.example:8088"}, want: "mec.example"},
		"all addresses":           {listener: listener{name: "auth", addr: ":10443"}, want: machine},
		"all addresses, in IPv6":  {listener: listener{name: "mp1", addr: "[::]:8088"}, want: machine},
		"a public URL":            {listener: listener{name: "mp1", addr: ":8088"}, publicURL: "https://mec.example"},
		"operations, all of them": {listener: listener{name: "ops", addr: ":9090"}},
		"operations, loopback":    {listener: listener{name: "ops", addr: "[::1]:9090"}},
		"operations, one address": {listener: listener{name: "ops", addr: "192.0.2.1:9090"}, want: "192.0.2.1"},
		"no address at all":       {listener: listener{name: "mp1", addr: "8088"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := planned(t)
			f.Server.PublicURL = x.publicURL
			require.Equal(t, x.want, (&examination{Installation: f.Installation}).reachedAs(x.listener))
		})
	}
}
