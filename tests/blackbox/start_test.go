package blackbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestTheFirstStartLeavesWhatAnOperatorNeedsForNobodyElseToRead(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	p.NewApp(t)
	first := p.Bootstrap(t)
	require.Regexp(t, `^[A-Za-z0-9]{20}$`, first.AccessKeyID)
	require.Regexp(t, `^[A-Za-z0-9]{64}$`, first.SecretKey)
	require.ElementsMatch(t, []string{"mm5", "ops"}, first.Scopes)
	require.Equal(t, p.URL("auth"), first.URLs["auth"])
	require.Equal(t, p.URL("mp1"), first.URLs["mp1"])
	require.Equal(t, written(t, p.CAFile()), written(t, filepath.Join(filepath.Dir(p.BootstrapFile()), first.CAFile)))
	public := map[string]bool{"pki/ca.crt": true, "pki/server.crt": true}
	seen := 0
	err := filepath.WalkDir(p.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(p.DataDir, path)
		if err != nil {
			return err
		}
		mode := info.Mode().Perm()
		switch {
		case public[name]:
			require.Zero(t, mode&0o022, "%s may be changed by others: %s", name, mode)
			seen++
		case d.IsDir() && name == "pki", name == ".":
			require.Zero(t, mode&0o022, "%s may be changed by others: %s", name, mode)
		case d.Type()&fs.ModeSocket != 0: // its directory is closed
		default:
			require.Zero(t, mode&0o077, "%s is open to others: %s", name, mode)
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, len(public), seen)
	require.NotContains(t, p.Log(), first.SecretKey)
	auditOf(t, p, "the first credential", func(e object) bool {
		return e["action"] == "credential.create" && e["client"] == first.AccessKeyID
	})
}

func TestAFirstStartThatIsKilledIsMadeGoodByTheNext(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{5, 15, 30, 50, 70, 90, 110, 130, 160, 200} {
		t.Run((after * time.Millisecond).String(), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(harness.Scratch(t), "data")
			harness.KillAfter(t, "mep", after*time.Millisecond, "run", "--data-dir", dir, "--mm5-listen", "127.0.0.1:0", "--mp1-listen", "127.0.0.1:0",
				"--auth-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
			p := harness.Start(t, harness.Secure(), harness.DataDir(dir))
			a, _ := appOf(t, p) // with the credentials of the file
			a.Get(a.services()).Is(200)
			info, err := os.Stat(p.BootstrapFile())
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
			require.Len(t, kids(t, p), 1)
		})
	}
}

func TestTheCredentialsFileFollowsTheListeners(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	before := p.Bootstrap(t)
	p.Restart()
	after := p.Bootstrap(t)
	require.Equal(t, before.Keys, after.Keys)
	require.Equal(t, map[string]string{
		"auth": p.URL("auth"), "mp1": p.URL("mp1"), "mm5": p.URL("mm5"), "dns": p.URL("dns-management"),
		"gateway": p.URL("gateway"), "gateway-management": p.URL("gateway-management"),
	}, after.URLs)
	require.Zero(t, harness.Run(t, "mep", []string{"token", "--credentials", p.BootstrapFile()}).Code)
	p.Restart(harness.Args("--auth-public-url=https://mep.example:8443/auth/"))
	require.Equal(t, "https://mep.example:8443/auth", p.Bootstrap(t).URLs["auth"])
}

func TestACredentialsFileThatWasDeletedStaysDeleted(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	keys := p.Bootstrap(t).Keys
	require.NoError(t, os.Remove(p.BootstrapFile()))
	p.Restart()
	require.NoFileExists(t, p.BootstrapFile())
	keys.Fetch(p.Auth(t))
	out := mepCLI(t, p, "credentials", "list")
	require.Equal(t, 2, strings.Count(out.Output, "\n"), "a heading and one credential:\n%s", out.Output)
}

func TestTheCredentialsFileNamesTheRightCA(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), harness.Args("--auth-listen", harness.FreeAddr(t), "--mp1-listen", harness.FreeAddr(t)))
	ca := newAuthority(t, "others")
	pair := ca.pair(t, "server", nil)
	p.Restart(harness.Args("--tls-cert", pair.cert, "--tls-key", pair.key), harness.Trust(ca.file))
	require.NotEqual(t, "../pki/ca.crt", p.Bootstrap(t).CAFile, "the platform's own CA does not vouch for this certificate")
}
