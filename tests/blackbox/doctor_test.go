package blackbox

import (
	"encoding/json"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// diagnosis is one finding of mep doctor, as --json has it.
type diagnosis struct {
	Check, Level, Subject, Finding, Remedy string
}

// examine runs mep doctor with --json. The exit code must be what the findings say.
func examine(t *testing.T, args ...string) []diagnosis {
	t.Helper()
	out := harness.Run(t, "mep", append([]string{"doctor", "--json"}, args...))
	dec := json.NewDecoder(strings.NewReader(out.Output)) // a message for people may follow
	dec.DisallowUnknownFields()
	var list []diagnosis
	require.NoError(t, dec.Decode(&list), out.Output)
	failed := 0
	for _, d := range list {
		require.Contains(t, []string{"ok", "note", "warn", "fail"}, d.Level)
		require.NotEmpty(t, d.Check)
		require.NotEmpty(t, d.Subject)
		require.NotEmpty(t, d.Finding)
		require.Equal(t, d.Level == "warn" || d.Level == "fail", d.Remedy != "", "who is warned is told what to do: %+v", d)
		if d.Level == "fail" {
			failed = 1
		}
	}
	require.Equal(t, failed, out.Code, out.Output)
	return list
}

// faults are what was found and ought to be changed. The clock of the machine that runs the tests is not the platform's fault.
func faults(list []diagnosis) []diagnosis {
	return slices.DeleteFunc(slices.Clone(list), func(d diagnosis) bool {
		return d.Level == "ok" || d.Level == "note" || d.Check == "clocks" && d.Subject == "the clock"
	})
}

// anyPort are listeners that can always be bound.
var anyPort = []string{
	"--mp1-listen", "127.0.0.1:0", "--mm5-listen", "127.0.0.1:0", "--auth-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0",
	"--dns-listen", "127.0.0.1:0", "--dns-management-listen", "127.0.0.1:0",
	"--gateway-listen", "127.0.0.1:0", "--gateway-management-listen", "127.0.0.1:0",
	// A machine that runs tests may not let a process open as many files as an operator would.
	"--limits-connections", "100", "--gateway-connections", "100", "--gateway-connections-hard", "100",
}

// itsSettings are those a process listens with, and its data directory.
func itsSettings(t *testing.T, p *harness.Process) []string {
	t.Helper()
	return settingsAt(p, func(listener string) string {
		u, err := url.Parse(p.URL(listener))
		require.NoError(t, err)
		return u.Host
	})
}

// settingsAt are those of a platform whose listeners are at other addresses.
func settingsAt(p *harness.Process, addr func(listener string) string) []string {
	args := []string{"--data-dir", p.DataDir, "--limits-connections", "100", "--gateway-connections", "100", "--gateway-connections-hard", "100"}
	for _, name := range []string{"mp1", "mm5", "auth", "ops", "dns", "dns-management", "gateway", "gateway-management"} {
		args = append(args, "--"+name+"-listen", addr(name))
	}
	return args
}

// files lists what is below a directory, with permissions, sizes and times, apart from what a running etcd writes to.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(path, filepath.Join(dir, "etcd")) {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all[path] = info.Mode().String() + info.ModTime().String()
		}
		return err
	}))
	return all
}

func TestDoctorFindsNothingWhereAllIsWell(t *testing.T) {
	t.Parallel()
	t.Run("before the first start", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "data")
		require.Empty(t, faults(examine(t, append(anyPort, "--data-dir", dir)...)))
		require.NoDirExists(t, dir, "nothing is made")
	})
	t.Run("while the platform runs, and after it", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t, harness.Secure())
		before := files(t, p.DataDir)
		list := examine(t, itsSettings(t, p)...)
		require.Empty(t, faults(list))
		checks := map[string]bool{}
		for _, d := range list {
			checks[d.Check] = checks[d.Check] || d.Level == "ok"
		}
		require.Equal(t, map[string]bool{
			"configuration": true, "data directory": true, "certificates": true, "clocks": true, "ports": true, "etcd": true,
			"tokens": true, "platform": true, "limits": true,
		}, checks, "each check has found something to be in order")
		require.Equal(t, before, files(t, p.DataDir))

		p.Stop()
		before = files(t, p.DataDir)
		// Another test may have its ports by now.
		require.Empty(t, faults(examine(t, settingsAt(p, func(string) string { return harness.FreeAddr(t) })...)))
		require.Equal(t, before, files(t, p.DataDir))
		p.Restart()
	})
	t.Run("in development mode, of which it warns", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t)
		found := faults(examine(t, append(itsSettings(t, p), "--dev")...))
		require.Len(t, found, 1, "%+v", found)
		require.Equal(t, "dev", found[0].Subject)
	})
	t.Run("a line for each finding", func(t *testing.T) {
		t.Parallel()
		out := harness.Run(t, "mep", append([]string{"doctor", "--data-dir", "new"}, anyPort...))
		require.Zero(t, out.Code, out.Output)
		for line := range strings.Lines(out.Output) {
			require.Regexp(t, `^(ok  |note|warn)  (configuration|data directory|certificates|clocks|ports|etcd|tokens|platform|limits) +\S.*\n$`, line)
		}
	})
}

func TestDoctorSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	t.Parallel()
	running := harness.Start(t, harness.Secure())
	stopped := func(t *testing.T) string {
		p := harness.Start(t, harness.Secure())
		p.Stop()
		return p.DataDir
	}
	type broken struct {
		args         func(t *testing.T) []string
		level, check string
		finds        string // a regular expression for subject, finding and remedy
	}
	in := func(breakIt func(t *testing.T, dir string)) func(*testing.T) []string {
		return func(t *testing.T) []string {
			dir := stopped(t)
			breakIt(t, dir)
			return append(slices.Clone(anyPort), "--data-dir", dir)
		}
	}
	with := func(args ...string) func(*testing.T) []string {
		return func(t *testing.T) []string {
			return append(append(slices.Clone(anyPort), "--data-dir", filepath.Join(t.TempDir(), "data")), args...)
		}
	}
	for name, x := range map[string]broken{
		"the key file is gone": {in(func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "auth", "seal.key")))
		}), "fail", "tokens", `seal\.key is missing.*backup`},
		"the key file can be read by others": {in(func(t *testing.T, dir string) {
			require.NoError(t, os.Chmod(filepath.Join(dir, "auth", "seal.key"), 0o644))
		}), "fail", "data directory", `seal\.key has the permissions 0644.*chmod 600`},
		"the key of the CA is gone": {in(func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "pki", "ca.key")))
		}), "fail", "certificates", `ca\.key is missing.*restore`},
		"the certificate is damaged": {in(func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "pki", "server.crt"), []byte("x"), 0o644))
		}), "warn", "certificates", `server\.crt holds no certificate.*start the platform`},
		"the data directory is a file": {func(t *testing.T) []string {
			return append(slices.Clone(anyPort), "--data-dir", file(t, "data", ""))
		}, "fail", "data directory", `is not a directory.*set dataDir`},
		"no room for the reserve": {with("--storage-reserve", "9000000000000000000"), "fail", "data directory", `less than storage\.reserve.*make room`},
		"a port that is taken": {func(t *testing.T) []string {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(func() { _ = ln.Close() })
			return with("--mp1-listen", ln.Addr().String())(t)
		}, "fail", "ports", `mp1\.listen .* is in use by .*ss -ltnp`},
		"a DNS port that is taken": {func(t *testing.T) []string {
			pc, err := net.ListenPacket("udp", "127.0.0.1:0") // as by a resolver of the system's, over UDP
			require.NoError(t, err)
			t.Cleanup(func() { _ = pc.Close() })
			return with("--dns-listen", pc.LocalAddr().String())(t)
		}, "fail", "ports", `dns\.listen .* is in use by `},
		"a DNS server that listens elsewhere": {func(t *testing.T) []string {
			return append(itsSettings(t, running), "--dns-listen", "127.0.0.1:1")
		}, "warn", "ports", `dns\.listen is 127\.0\.0\.1:1, but.*restart`},
		"a certificate that is not there": {with("--tls-cert", "/nowhere/tls.crt", "--tls-key", "/nowhere/tls.key"),
			"fail", "certificates", `/nowhere/tls\.crt does not exist`},
		"a public name without a certificate": {with("--auth-public-url", "https://mec.example"), "fail", "certificates", `mec\.example.*tls\.names`},
		"etcd that is not there":              {with("--etcd-endpoints", "127.0.0.2:1"), "fail", "etcd", `127\.0\.0\.2:1 refuses connections.*etcd\.endpoints`},
		"signatures of any date":              {with("--auth-signature-window", "0s"), "warn", "configuration", `auth\.signatureWindow is 0s.*15m`},
		"a setting that cannot be":            {with("--drain", "10s", "--storage-quota", "1"), "fail", "configuration", `drain must be at most 4s.*correct it`},
		"the key file of another database": {func(t *testing.T) []string {
			return append(itsSettings(t, running), "--auth-key-file", file(t, "seal.key", strings.Repeat("x", 40)))
		}, "fail", "tokens", `is not the one the secrets in the database were sealed with.*put back`},
		"the running platform listens elsewhere": {func(t *testing.T) []string {
			return append(itsSettings(t, running), "--mp1-listen", "127.0.0.1:1")
		}, "warn", "ports", `mp1\.listen is 127\.0\.0\.1:1, but.*restart`},
		"the running platform is asked at another address": {func(t *testing.T) []string {
			return append(itsSettings(t, running), "--ops-listen", "127.0.0.1:1")
		}, "fail", "platform", `is used by process \d+ \(mep\), but nothing answers.*ops\.listen`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := faults(examine(t, x.args(t)...))
			require.True(t, slices.ContainsFunc(found, func(d diagnosis) bool {
				return d.Level == x.level && d.Check == x.check && regexp.MustCompile(x.finds).MatchString(d.Subject+" "+d.Finding+": "+d.Remedy)
			}), "%+v", found)
		})
	}
}
