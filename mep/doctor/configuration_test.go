package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
