package blackbox

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// printed reads credentials that a command printed.
func printed(t *testing.T, out harness.Outcome) harness.Credentials {
	t.Helper()
	require.Zero(t, out.Code, out.Output)
	var c harness.Credentials
	require.NoError(t, json.Unmarshal([]byte(out.Output), &c), out.Output)
	return c
}

func TestCredentialsAreManagedOnTheCommandLineWhetherThePlatformRunsOrNot(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct{ before, after func(*harness.Process) }{
		"running": {func(*harness.Process) {}, func(*harness.Process) {}},
		"stopped": {func(p *harness.Process) { p.Stop() }, func(p *harness.Process) { p.Restart() }},
		"killed":  {func(p *harness.Process) { p.Kill() }, func(p *harness.Process) { p.Restart() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Secure(), generous(), patient())
			ask := func(k harness.Keys, status int) {
				t.Helper()
				x.after(p)
				k.Ask(p.Auth(t)).Is(status)
				x.before(p)
			}
			x.before(p)
			made := printed(t, mepCLI(t, p, "credentials", "create", "--app-instance-id", "new", "--name", "demo", "--requires", "rnis,location"))
			require.NoError(t, uuid.Validate(made.AppInstanceID))
			require.Equal(t, []string{"mp1"}, made.Scopes)
			require.Equal(t, "demo", made.Name)
			ask(made.Keys, 200)

			again := mepCLI(t, p, "credentials", "create", "--app-instance-id", made.AppInstanceID, "--name", "demo", "--requires", "rnis,location")
			require.Zero(t, again.Code)
			require.NotContains(t, again.Output, made.SecretKey)
			list := mepCLI(t, p, "credentials", "list").Output
			require.Contains(t, list, made.AccessKeyID)
			require.NotContains(t, list, made.SecretKey)

			require.Zero(t, mepCLI(t, p, "credentials", "disable", made.AccessKeyID).Code)
			ask(made.Keys, 401)
			require.Zero(t, mepCLI(t, p, "credentials", "enable", made.AccessKeyID).Code)
			rotated := printed(t, mepCLI(t, p, "credentials", "rotate", made.AccessKeyID, "--overlap", "0s"))
			require.NotEqual(t, made.SecretKey, rotated.SecretKey)
			ask(made.Keys, 401)
			ask(rotated.Keys, 200)

			out := filepath.Join(t.TempDir(), "ops.json")
			res := mepCLI(t, p, "credentials", "create", "--scope", "ops", "--name", "watcher", "--out", out)
			require.Zero(t, res.Code, res.Output)
			info, err := os.Stat(out)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
			require.NotContains(t, res.Output, "secretKey")

			require.Zero(t, mepCLI(t, p, "credentials", "delete", made.AccessKeyID).Code)
			ask(rotated.Keys, 401)
			require.Equal(t, 1, mepCLI(t, p, "credentials", "delete", made.AccessKeyID).Code)
			auditOf(t, p, "the deletion", func(e object) bool {
				return e["action"] == "credential.delete" && e["result"] == "success" && e["client"] == made.AccessKeyID && e["via"] == "command line"
			})
		})
	}
}

func TestATokenIsHadOnTheCommandLine(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	first := p.BootstrapFile()
	for _, args := range [][]string{{}, {"--signed"}, {"--scope", "ops"}, {"--ca", p.CAFile()}, {"--url", p.URL("auth")}} {
		out := harness.Run(t, "mep", append([]string{"token", "--credentials", first}, args...))
		require.Zero(t, out.Code, out.Output)
		p.Auth(t).With(strings.TrimSpace(out.Output)).Get(harness.ConfsPath(uuid.NewString())).Problem(map[bool]int{true: 403, false: 404}[len(args) == 2 && args[1] == "ops"])
	}
	other := newAuthority(t, "other")
	for name, x := range map[string]struct {
		args []string
		says string
	}{
		"no file":                {nil, "--credentials"},
		"a file that is missing": {[]string{"--credentials", "/nonexistent.json"}, "/nonexistent.json"},
		"no JSON":                {[]string{"--credentials", file(t, "a.json", "hello")}, "a.json"},
		"a key that is none":     {[]string{"--credentials", file(t, "b.json", `{"accessKeyId":"x","secretKey":"y"}`)}, "accessKeyId"},
		"a member nobody knows":  {[]string{"--credentials", file(t, "c.json", `{"caFil":"x"}`)}, "caFil"},
		"another CA":             {[]string{"--credentials", first, "--ca", other.file}, "certificate"},
		"a scope it has not":     {[]string{"--credentials", first, "--scope", "mp1"}, "mp1"},
		"nobody there":           {[]string{"--credentials", first, "--url", "https://127.0.0.1:1"}, "refused"},
		"plain HTTP":             {[]string{"--credentials", first, "--url", "http://" + p.Addr("auth")}, "http"},
	} {
		t.Run(name, func(t *testing.T) {
			out := harness.Run(t, "mep", append([]string{"token"}, x.args...))
			require.Equal(t, 1, out.Code, out.Output)
			require.Contains(t, out.Output, x.says)
			require.NotContains(t, out.Output, p.Bootstrap(t).SecretKey)
		})
	}
	p.Stop()
	require.Equal(t, 1, harness.Run(t, "mep", []string{"token", "--credentials", first}).Code)
}

func TestKeysOnTheCommandLineWhileThePlatformIsStopped(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	_, keys := appOf(t, p)
	old := kids(t, p)[0]
	p.Stop()
	require.Contains(t, mepCLI(t, p, "keys", "list").Output, old)
	out := mepCLI(t, p, "keys", "rotate", "--auth-keys-not-before=0s")
	require.Zero(t, out.Code, out.Output)
	kid := printedKid.FindStringSubmatch(out.Output)[1]
	require.Zero(t, mepCLI(t, p, "keys", "retire", old, "--revoke").Code)
	list := mepCLI(t, p, "keys", "list").Output
	require.NotContains(t, list, old)
	require.Regexp(t, kid+`.* signing `, list)
	p.Restart()
	require.Equal(t, []string{kid}, kids(t, p))
	require.Equal(t, kid, kidOf(t, keys.Fetch(p.Auth(t)).AccessToken))
}

func TestCommandsThatAreRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	keys := harness.Provision(p.Manager(t), nil)
	for name, x := range map[string]struct {
		args []string
		says string
	}{
		"credentials for nobody":        {[]string{"credentials", "create"}, "--app-instance-id"},
		"an app that is no UUID":        {[]string{"credentials", "create", "--app-instance-id", "x"}, "UUID"},
		"an app with a manager's scope": {[]string{"credentials", "create", "--app-instance-id", "new", "--scope", "mm5"}, "mp1"},
		"a manager with an app's scope": {[]string{"credentials", "create", "--scope", "mp1", "--name", "x"}, "mm5"},
		"a scope nobody has":            {[]string{"credentials", "create", "--scope", "root", "--name", "x"}, "root"},
		"a manager without a name":      {[]string{"credentials", "create", "--scope", "mm5"}, "--name"},
		"a manager named like an app":   {[]string{"credentials", "create", "--scope", "mm5", "--name", uuid.NewString()}, "--name"},
		"an access key that is none":    {[]string{"credentials", "create", "--app-instance-id", "new", "--access-key-id", "x"}, "--access-key-id"},
		"an access key of another":      {[]string{"credentials", "create", "--app-instance-id", "new", "--access-key-id", keys.AccessKeyID}, "another"},
		"a secret file that is missing": {[]string{"credentials", "create", "--app-instance-id", "new", "--secret-key-file", "/nonexistent"}, "/nonexistent"},
		"a secret file that holds none": {[]string{"credentials", "create", "--app-instance-id", "new", "--secret-key-file", file(t, "s", "x")}, "64"},
		"an output that cannot be":      {[]string{"credentials", "create", "--app-instance-id", "new", "--out", "/proc/x/y"}, "/proc/x"},
		"a rotation of nobody":          {[]string{"credentials", "rotate", characters(20)}, "no access key"},
		"a rotation without a name":     {[]string{"credentials", "rotate"}, "access key"},
		"an overlap that is too long":   {[]string{"credentials", "rotate", keys.AccessKeyID, "--overlap", "9999h"}, "--overlap"},
		"a key nobody has":              {[]string{"keys", "retire", "0123456789abcdef"}, "no signing key"},
		"a key that is a path":          {[]string{"keys", "retire", "../private/x"}, "no signing key"},
		"a command nobody knows":        {[]string{"keys", "burn"}, ""},
		"a flag nobody knows":           {[]string{"keys", "list", "--nonsense"}, "nonsense"},
		"a setting that is wrong":       {[]string{"keys", "list", "--auth-algorithm", "HS256"}, "HS256"},
	} {
		t.Run(name, func(t *testing.T) {
			before := mepCLI(t, p, "credentials", "list").Output + mepCLI(t, p, "keys", "list").Output
			out := mepCLI(t, p, x.args...)
			if name == "a command nobody knows" && out.Code == 0 {
				require.Contains(t, out.Output, "Usage", "cobra shows what there is")
				return
			}
			require.Equal(t, 1, out.Code, out.Output)
			require.Contains(t, out.Output, x.says)
			require.True(t, strings.HasPrefix(out.Output, "mep: "), out.Output)
			if name != "an output that cannot be" {
				require.Equal(t, before, mepCLI(t, p, "credentials", "list").Output+mepCLI(t, p, "keys", "list").Output)
			}
		})
	}
}
