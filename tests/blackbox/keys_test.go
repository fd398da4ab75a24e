package blackbox

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// kids lists the keys that are published.
func kids(t *testing.T, p *harness.Process) []string {
	t.Helper()
	list := []string{}
	for _, k := range p.Auth(t).Get("/.well-known/jwks.json").Is(200).Object()["keys"].([]any) {
		list = append(list, k.(object)["kid"].(string))
	}
	return list
}

// kidOf is the key a token was signed with.
func kidOf(t *testing.T, token string) string {
	t.Helper()
	return tokenPart(t, token, 0)["kid"].(string)
}

var printedKid = regexp.MustCompile(`(?m)^([0-9a-f]{16}) `)

func TestKeysRotateWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	const delay = "--auth-keys-not-before=1s"
	p := harness.Start(t, harness.Secure(), generous(), harness.Args(delay))
	manager := p.Manager(t)
	stop := make(chan struct{})
	var all sync.WaitGroup
	var requests atomic.Int64
	var signers sync.Map
	for range 8 {
		keys := harness.Provision(manager, nil)
		token := keys.Fetch(p.Auth(t)).AccessToken
		auth := p.Auth(t)
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := p.Client(t).With(token).Try("GET", services, nil)
				if err != nil || a.Status != 200 {
					t.Errorf("Mp1: %v %+v", err, a)
					return
				}
				a, err = auth.Try("POST", "/oauth2/token", harness.Form("grant_type", "client_credentials"), harness.AsForm(), keys.Basic())
				if err != nil || a.Status != 200 {
					t.Errorf("token: %v %+v", err, a)
					return
				}
				next := a.Object()["access_token"].(string)
				a, err = p.Client(t).With(next).Try("GET", services, nil)
				if err != nil || a.Status != 200 {
					t.Errorf("Mp1 with a new token: %v %+v", err, a)
					return
				}
				signers.Store(kidOf(t, next), true)
				requests.Add(3)
			}
		})
	}
	first := manager
	for range 2 {
		before := kids(t, p)
		var out harness.Outcome
		harness.Eventually(t, "the keys may rotate", func() error {
			out = mepCLI(t, p, "keys", "rotate", delay)
			return harness.Not(out.Code == 0, "%s", out.Output)
		})
		kid := printedKid.FindStringSubmatch(out.Output)[1]
		require.NotContains(t, before, kid)
		require.Contains(t, kids(t, p), kid, "it is published before it signs")
		harness.Eventually(t, "the new key signs", func() error {
			_, signs := signers.Load(kid)
			return harness.Not(signs || t.Failed(), "not yet")
		})
	}
	first.Get("/mep/appMng/v1/applications").Is(200) // with a token of the first key
	close(stop)
	all.Wait()
	require.Greater(t, requests.Load(), int64(100))
	require.Len(t, kids(t, p), 3)
}

func TestATokenIsGoodForItsWholeLifeAfterARotation(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), harness.Args("--auth-token-lifetime=24h", "--auth-keys-not-before=1s"))
	a, _ := appOf(t, p)
	old := kidOf(t, tokenOf(t, a))
	out := mepCLI(t, p, "keys", "rotate")
	require.Zero(t, out.Code, out.Output)
	line := regexp.MustCompile(`(?m)^` + old + `.*$`).FindString(mepCLI(t, p, "keys", "list").Output)
	columns := strings.Fields(line)
	require.Len(t, columns, 6, line)
	until, err := time.Parse(time.RFC3339, columns[5])
	require.NoError(t, err)
	expires := time.Unix(int64(claims(t, tokenOf(t, a))["exp"].(float64)), 0)
	require.False(t, until.Before(expires), "the key verifies until %s, a token it signed is good until %s", until, expires)
}

func TestARevokedKeyTakesItsTokensWithItAtOnce(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	auth := harness.StartMepauth(t, etcd.Endpoint(), harness.Secure(), generous())
	server := harness.StartMepserver(t, etcd.Endpoint(), harness.Secure())
	keys := harness.Provision(auth.Manager(t), nil)
	token := keys.Fetch(auth.Auth(t)).AccessToken
	harness.Eventually(t, "the token is known", func() error {
		a := server.Client(t).With(token).Get(services)
		return harness.Not(a.Status == 200, "answered %d", a.Status)
	})
	kid := kidOf(t, token)
	out := harness.Run(t, "mep", []string{"keys", "retire", kid, "--revoke", "--etcd-endpoints", etcd.Endpoint(), "--data-dir", auth.DataDir})
	require.Zero(t, out.Code, out.Output)
	harness.EventuallyWithin(t, time.Second, "the token is refused", func() error {
		a := server.Client(t).With(token).Get(services)
		return harness.Not(a.Status == 401, "answered %d", a.Status)
	})
	unauthenticated(t, auth.Auth(t).With(token).Get("/mep/appMng/v1/applications"), "invalid_token")
	require.NotContains(t, kids(t, auth), kid)
	var fresh string
	harness.Eventually(t, "there are tokens again", func() error {
		a := keys.Ask(auth.Auth(t))
		if a.Status == 200 {
			fresh = a.Object()["access_token"].(string)
		}
		return harness.Not(a.Status == 200, "answered %d", a.Status)
	})
	require.NotEqual(t, kid, kidOf(t, fresh))
	harness.Eventually(t, "and they are taken", func() error {
		a := server.Client(t).With(fresh).Get(services)
		return harness.Not(a.Status == 200, "answered %d", a.Status)
	})
	server.Kill()
	server.Restart()
	unauthenticated(t, server.Client(t).With(token).Get(services), "invalid_token")
}

func TestARetiredKeyGoesOnVerifying(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	a, keys := appOf(t, p)
	kid := kidOf(t, tokenOf(t, a))
	out := mepCLI(t, p, "keys", "retire", kid)
	require.Zero(t, out.Code, out.Output)
	a.Get(a.services()).Is(200)
	harness.Eventually(t, "another key signs", func() error {
		return harness.Not(kidOf(t, keys.Fetch(p.Auth(t)).AccessToken) != kid, "not yet")
	})
	a.Get(a.services()).Is(200)
	require.Contains(t, kids(t, p), kid)
}

func TestKeysAndTokensOutliveARestart(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	a, keys := appOf(t, p)
	before := kids(t, p)
	require.Len(t, before, 1)
	for _, end := range []func(){func() { p.Stop() }, p.Kill} {
		end()
		p.Restart()
		require.Equal(t, before, kids(t, p))
		a.Get(a.services()).Is(200)
		keys.Fetch(p.Auth(t))
		p.Manager(t).Get("/mep/appMng/v1/applications").Is(200)
	}
}

func TestReplicasThatStartAtTheSameTimeAgreeOnOneKey(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	seal := file(t, "seal.key", strings.Repeat("0123456789abcdef", 4)+"\n")
	replicas := make([]*harness.Process, 3)
	var all sync.WaitGroup
	for i := range replicas {
		all.Go(func() {
			replicas[i] = harness.StartMepauth(t, etcd.Endpoint(), harness.Secure(), generous(), harness.Args("--auth-key-file", seal))
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	var managers []harness.Keys
	for _, r := range replicas {
		if _, err := os.Stat(r.BootstrapFile()); err == nil {
			managers = append(managers, r.Bootstrap(t).Keys)
		}
	}
	require.Len(t, managers, 1, "one of them makes the first credential")
	first := kids(t, replicas[0])
	require.Len(t, first, 1)
	keys := harness.Provision(replicas[0].ManagerWith(t, managers[0]), nil)
	for _, r := range replicas {
		require.Equal(t, first, kids(t, r))
		harness.Eventually(t, "the replica knows the app", func() error {
			a := keys.Ask(r.Auth(t))
			return harness.Not(a.Status == 200, "answered %d", a.Status)
		})
		token := keys.Fetch(r.Auth(t)).AccessToken
		for _, other := range replicas {
			harness.Eventually(t, "every replica takes the token of every other", func() error {
				a := other.Auth(t).With(token).Get("/mep/appMng/v1/applications")
				return harness.Not(a.Status == 403, "answered %d %s", a.Status, a.Body)
			})
		}
	}
	// Each has a signature of its own use only.
	once := signature{Keys: keys, host: "auth.example"}
	once.date = aged(time.Second)
	once.ask(replicas[0].Auth(t)).Is(200)
	oauthError(t, once.ask(replicas[1].Auth(t)), 401, "invalid_client")
}

func TestAKeyFileThatIsNotTheRightOneIsAClearRefusal(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		change func(t *testing.T, path string)
		says   string
	}{
		"missing": {func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }, "is missing"},
		"another": {func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("x", 44)), 0o600))
		}, "is not the one"},
		"cut off": {func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 10)) }, "at least 32 bytes"},
		"empty":   {func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) }, "at least 32 bytes"},
		"directory": {func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
		}, "seal.key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Secure(), harness.MayFail())
			keys := harness.Provision(p.Manager(t), nil)
			p.Stop()
			path := filepath.Join(p.DataDir, "auth", "seal.key")
			good := written(t, path)
			x.change(t, path)
			running, code := p.RestartOrEnd()
			require.False(t, running)
			require.Equal(t, 1, code)
			require.Contains(t, p.Log(), x.says)
			require.Contains(t, p.Log(), path)
			for _, command := range [][]string{{"keys", "list"}, {"credentials", "create", "--app-instance-id", "new"}} {
				out := mepCLI(t, p, command...)
				require.Equal(t, 1, out.Code, out.Output)
				require.Contains(t, out.Output, x.says)
			}
			require.NoError(t, os.RemoveAll(path))
			require.NoError(t, os.WriteFile(path, good, 0o600))
			running, _ = p.RestartOrEnd()
			require.True(t, running)
			keys.Fetch(p.Auth(t))
		})
	}
}
