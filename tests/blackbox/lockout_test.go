package blackbox

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// wrong is a request for a token with a secret key that is not the right one.
func wrong(c *harness.Client, k harness.Keys) *harness.Answer {
	c.TB().Helper()
	k.SecretKey = characters(64)
	return k.Ask(c)
}

// locked checks that a key is locked for whoever asked.
func locked(t *testing.T, a *harness.Answer) {
	t.Helper()
	oauthError(t, a, 403, "access_denied")
	seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.Positive(t, seconds)
	require.LessOrEqual(t, seconds, 900)
}

// S-5: the lock must not be a weapon against the holder of the key.
func TestThreeFailuresLockTheKeyForTheirSourceOnly(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	keys := harness.Provision(p.Manager(t), nil)
	attacker, holder := p.AuthFrom(t, "127.0.0.66"), p.AuthFrom(t, "127.0.0.5")
	for range 3 {
		oauthError(t, wrong(attacker, keys), 401, "invalid_client")
	}
	locked(t, wrong(attacker, keys))
	locked(t, keys.Ask(attacker))
	locked(t, signature{Keys: keys}.ask(attacker))
	keys.Fetch(holder)
	signature{Keys: keys}.ask(holder).Is(200)
	other := harness.Provision(p.Manager(t), nil)
	other.Fetch(attacker)

	t.Run("whatever forwarding headers say", func(t *testing.T) {
		for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "CF-Connecting-IP", "True-Client-IP"} {
			locked(t, attacker.Post("/oauth2/token", harness.Form("grant_type", "client_credentials"), harness.AsForm(), keys.Basic(),
				harness.Header(name, "127.0.0.5")))
		}
	})
	t.Run("the lock is in the audit stream", func(t *testing.T) {
		auditOf(t, p, "the denial", func(e object) bool {
			return e["result"] == "denied" && e["client"] == keys.AccessKeyID && e["source"] == "127.0.0.66"
		})
	})
}

func TestASuccessForgetsTheFailuresBefore(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	keys := harness.Provision(p.Manager(t), nil)
	c := p.AuthFrom(t, "127.0.0.5")
	for range 3 {
		for range 2 {
			oauthError(t, wrong(c, keys), 401, "invalid_client")
		}
		keys.Fetch(c)
	}
}

func TestALockEndsAfterItsTime(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), harness.Args("--auth-lockout-duration=1s"))
	keys := harness.Provision(p.Manager(t), nil)
	c := p.AuthFrom(t, "127.0.0.66")
	for range 3 {
		wrong(c, keys).Is(401)
	}
	locked(t, keys.Ask(c))
	harness.Eventually(t, "the lock ends", func() error {
		a := keys.Ask(c)
		return harness.Not(a.Status == 200, "answered %d", a.Status)
	})
}

func TestFailuresFromManyAddressesDoNotLockOutTheHolder(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	keys := harness.Provision(p.Manager(t), nil)
	holder := p.AuthFrom(t, "127.0.0.5")
	keys.Fetch(holder)
	for i := range 10 {
		c := p.AuthFrom(t, fmt.Sprintf("127.0.1.%d", i+1))
		wrong(c, keys)
		wrong(c, keys)
	}
	locked(t, keys.Ask(p.AuthFrom(t, "127.0.2.1"))) // nobody used the key from there
	keys.Fetch(holder)
	signature{Keys: keys}.ask(holder).Is(200)
	p.Kill()
	p.Restart()
	locked(t, keys.Ask(p.AuthFrom(t, "127.0.2.1")))
	keys.Fetch(p.AuthFrom(t, "127.0.0.5"))
}

// S-5, S-16: whoever knows an access key, which is no secret, must not be able to keep its holder from tokens.
func TestWhoFloodsAnAccessKeyDoesNotKeepItsHolderFromTokens(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure()) // with the rates of an installation nobody touched
	keys := harness.Provision(p.Manager(t), nil)
	holder := p.AuthFrom(t, "127.0.0.5")
	keys.Fetch(holder)
	attacker := p.AuthFrom(t, "127.0.0.66")
	counts := map[int]int{}
	for range 60 {
		counts[wrong(attacker, keys).Status]++
	}
	require.Positive(t, counts[403], "%v", counts)
	require.Equal(t, 200, keys.Ask(holder).Status, "the answers to the attacker were %v", counts)
}

func TestGuessesAtTheSameTimeAreNotMoreThanThoseOneAfterAnother(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	keys := harness.Provision(p.Manager(t), nil)
	attacker := p.AuthFrom(t, "127.0.0.66")
	statuses := make(chan int, 64)
	var all sync.WaitGroup
	for range cap(statuses) {
		all.Go(func() {
			bad := keys
			bad.SecretKey = characters(64)
			a, err := attacker.Try("POST", "/oauth2/token", harness.Form("grant_type", "client_credentials"), harness.AsForm(), bad.Basic())
			if err == nil {
				statuses <- a.Status
			}
		})
	}
	all.Wait()
	close(statuses)
	counts := map[int]int{}
	for s := range statuses {
		counts[s]++
	}
	locked(t, keys.Ask(attacker))
	require.LessOrEqual(t, counts[401], 3, "guesses were judged: %v", counts)
}

func TestAnUnknownAccessKeyLooksLikeAKnownOne(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	known := harness.Provision(p.Manager(t), nil)
	unknown := harness.Keys{AccessKeyID: characters(20), SecretKey: characters(64)}
	c := p.AuthFrom(t, "127.0.0.66")
	for i := range 5 {
		for name, ask := range map[string]func(harness.Keys) *harness.Answer{
			"secret": func(k harness.Keys) *harness.Answer { return wrong(c, k) },
			"signature": func(k harness.Keys) *harness.Answer {
				return signature{Keys: harness.Keys{AccessKeyID: k.AccessKeyID, SecretKey: characters(64)}}.ask(c)
			},
		} {
			a, b := ask(known), ask(unknown)
			require.Equal(t, a.Status, b.Status, "%s %d", name, i)
			require.Equal(t, a.Object()["error"], b.Object()["error"])
			if a.Status == 401 {
				require.JSONEq(t, string(a.Body), string(b.Body))
			}
			for h := range a.Header {
				require.Contains(t, b.Header, h)
			}
		}
	}
}

func TestALockIsSharedByReplicasAndOutlivesThem(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	one := harness.StartMepauth(t, etcd.Endpoint(), harness.Secure(), generous())
	seal := one.DataDir + "/auth/seal.key"
	two := harness.StartMepauth(t, etcd.Endpoint(), harness.Secure(), generous(), harness.Args("--auth-key-file", seal))
	keys := harness.Provision(one.Manager(t), nil)
	at := func(p *harness.Process) *harness.Client { return p.AuthFrom(t, "127.0.0.66") }
	wrong(at(one), keys).Is(401)
	harness.Eventually(t, "the other replica knows the key", func() error {
		a := keys.Ask(two.AuthFrom(t, "127.0.0.5"))
		return harness.Not(a.Status == 200, "answered %d", a.Status)
	})
	wrong(at(two), keys).Is(401)
	wrong(at(one), keys).Is(401)
	locked(t, keys.Ask(at(one)))
	harness.EventuallyWithin(t, 2*time.Second, "the lock is known at the other replica", func() error {
		a := keys.Ask(at(two))
		return harness.Not(a.Status == 403, "answered %d", a.Status)
	})
	one.Kill()
	two.Kill()
	one.Restart()
	two.Restart()
	locked(t, keys.Ask(at(one)))
	locked(t, keys.Ask(at(two)))
	keys.Fetch(one.AuthFrom(t, "127.0.0.5"))
}
