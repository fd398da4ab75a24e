package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/identity"
)

func TestConfiguration(t *testing.T) {
	each(t, checkConfiguration, map[string]broken{
		"every client is believed about its address": {
			by:    func(_ *testing.T, f *fixture) { f.Common.Identity.Proxies = []string{"10.0.0.0/8", "0.0.0.0/0"} },
			level: Warn, finding: "proxies has 0.0.0.0/0", remedy: "your proxies only",
		},
		"the same in IPv6": {
			by:    func(_ *testing.T, f *fixture) { f.Common.Identity.Proxies = []string{"::/0"} },
			level: Warn, finding: "proxies has ::/0", remedy: "your proxies only",
		},
		"signatures of any date": {
			by:    func(_ *testing.T, f *fixture) { f.Auth.SignatureWindow = 0 },
			level: Warn, finding: "auth.signatureWindow is 0s", remedy: "15m",
		},
		"keys are never replaced": {
			by:    func(_ *testing.T, f *fixture) { f.Auth.RotateAfter = 0 },
			level: Warn, finding: "auth.keys.rotateAfter is 0s", remedy: "mep keys rotate",
		},
		"a lock that is over at once": {
			by:    func(_ *testing.T, f *fixture) { f.Auth.LockDuration = time.Second },
			level: Warn, finding: "auth.lockout is so weak that it stops nobody: one client may try 259200 secret keys", remedy: "auth.lockout.duration",
		},
		"failures that are forgotten at once": {
			by:    func(_ *testing.T, f *fixture) { f.Auth.LockWindow = time.Second },
			level: Warn, finding: "auth.lockout is so weak", remedy: "auth.lockout.window",
		},
		"failures without end": {
			by:    func(_ *testing.T, f *fixture) { f.Auth.LockFailures = 1_000_000 },
			level: Warn, finding: "auth.lockout is so weak", remedy: "auth.lockout.failures",
		},
		"requests without end": {
			by:    func(_ *testing.T, f *fixture) { f.Auth.SourceRate = 0 },
			level: Warn, finding: "auth.rate.source is 0", remedy: "20",
		},
		"call-backs to the platform's machine": {
			by:    func(_ *testing.T, f *fixture) { f.Server.CallbacksAllowLoopback = true },
			level: Warn, finding: "callbacks.allowLoopback", remedy: "false",
		},
		"the token service has a name that a service might have": {
			by: func(t *testing.T, f *fixture) {
				f.services(t, "mec.example")
				f.Gateway.AuthURLs = []string{"https://auth.mec.example:10443"}
			},
			level: Warn, finding: "gateway.authUrls is at auth.mec.example, below gateway.serviceDomain", remedy: "not below mec.example",
		},
		"Mp1 has one": {
			by: func(t *testing.T, f *fixture) {
				f.services(t, "mec.example")
				f.Gateway.Mp1URLs = []string{"https://mp1.example", "https://mp1.mec.example"}
			},
			level: Warn, finding: "gateway.mp1Urls is at mp1.mec.example, below", remedy: "another domain",
		},
		"a file that anybody changes": {
			by: func(t *testing.T, f *fixture) {
				f.File = filepath.Join(t.TempDir(), "mep.yaml")
				f.write(t, f.File, "")
				require.NoError(t, os.Chmod(f.File, 0o666))
			},
			finding: "can be changed by every user", remedy: "chmod o-w",
		},
	})
}

func TestOperationsForOtherMachinesAreNoted(t *testing.T) {
	f := stopped(t)
	f.Common.OpsListen = "0.0.0.0:0"
	require.Contains(t, examine(t.Context(), f.Installation, f.host), Finding{
		Check: checkConfiguration, Level: Note, Subject: "ops.listen",
		Finding: "is 0.0.0.0:0: from other machines it takes TLS and a token with the scope ops, for probes and metrics too",
	})
}

func TestEveryFaultOfTheConfigurationIsListed(t *testing.T) {
	f := planned(t)
	f.Common.Drain, f.Common.DataDir, f.Common.EtcdCert = time.Hour, "", "x"
	report := Misconfigured("/etc/mep.yaml", f.Common.Validate())
	require.Equal(t, 3, report.Faults())
	require.Equal(t, []string{"dataDir", "drain", "etcd.cert"}, subjects(alarming(report)))
	for _, one := range alarming(report) {
		require.Contains(t, one.Remedy, "/etc/mep.yaml")
	}
	require.Equal(t, Note, report[3].Level, "what was left out is said")

	report = Misconfigured("", fmt.Errorf(`flag --limits-services: "x" is not a whole number`))
	require.Equal(t, `the settings: flag --limits-services: "x" is not a whole number`, report[0].Subject+" "+report[0].Finding)
}

func TestNamesOfThePlatformThatServicesMightHave(t *testing.T) {
	f := stopped(t)
	found := func(domain, of string) bool {
		f.Gateway.ServiceDomain, f.Gateway.AuthURLs, f.Gateway.Mp1URLs = domain, []string{"https://auth." + of}, []string{"https://" + of}
		f.Common.Identity.Issuers = []identity.TrustedIssuer{{Issuer: "https://idp." + of, JWKSURL: "https://idp." + of + "/keys"}}
		var settings []string
		for _, one := range examine(t.Context(), f.Installation, f.host) {
			if strings.Contains(one.Finding, "where apps choose the names") {
				settings = append(settings, one.Subject)
			}
		}
		return slices.Equal([]string{"gateway.authUrls", "jwksUrl of an issuer"}, settings)
	}
	require.True(t, found("mec.invalid", "mec.invalid"))
	require.False(t, found("mec.invalid", "invalid"))
	require.False(t, found("", "mec.invalid"), "there are no such names")
}
