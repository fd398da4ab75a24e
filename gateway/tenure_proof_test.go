package gateway_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway"
	"github.com/openmep/mep/kit/identity"
)

// soon is how long the tokens of these tests are valid, in full seconds as in tokens.
const soon = 2 * time.Second

// rely changes who is trusted, as a reload does.
func (g *gate) rely(change func(*identity.Config)) {
	g.Helper()
	cfg := g.cfg.Common.Identity
	change(&cfg)
	apply, err := gateway.GuardOf(g.Gateway).Prepare(&cfg)
	require.NoError(g, err)
	apply()
}

// consumer is the app instance that calls.
const consumer = "c0000000-0000-4000-8000-000000000001"

// TestProofsThatHaveExpiredAreStillTakenBack withdraws what calls with expired tokens depend on. The expiry by itself ends nothing.
func TestProofsThatHaveExpiredAreStillTakenBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		other bool // another issuer issued the token
		// before makes a change before the token expires, take one after that.
		before, take func(w *world, g *gate, o *other)
		ends         bool
	}{
		"another issuer": {other: true},
		"its keys change": {other: true, take: func(_ *world, _ *gate, o *other) {
			o.publish(`{"keys":[]}`)
		}},
		"it is trusted in another way": {other: true, take: func(_ *world, g *gate, _ *other) {
			g.rely(func(cfg *identity.Config) {
				cfg.Issuers = slices.Clone(cfg.Issuers)
				cfg.Issuers[0].Scopes = []string{"mp1", "more"}
			})
		}},
		"it is trusted for another audience": {other: true, ends: true, take: func(_ *world, g *gate, _ *other) {
			g.rely(func(cfg *identity.Config) {
				cfg.Issuers = slices.Clone(cfg.Issuers)
				cfg.Issuers[0].Audience = "else"
			})
		}},
		"it is not trusted any more": {other: true, ends: true, take: func(_ *world, g *gate, _ *other) {
			g.rely(func(cfg *identity.Config) { cfg.Issuers = nil })
		}},
		"the platform": {},
		"the signing key is revoked": {ends: true, take: func(w *world, _ *gate, _ *other) {
			w.delete(state.SigningKeyKey(kid))
		}},
		"the signing key had its time": {before: func(w *world, _ *gate, _ *other) {
			w.put(state.SigningKeyKey(kid), state.SigningKey{
				Version: state.Current(), Algorithm: "ES256", JWK: jwkOf(w, kid, w.key), Retired: time.Now(), Expires: time.Now().Add(soon),
			})
		}, take: func(w *world, _ *gate, _ *other) { w.delete(state.SigningKeyKey(kid)) }},
		"the credential is deleted": {ends: true, take: func(w *world, _ *gate, _ *other) {
			w.delete(state.CredentialKey("ak-" + consumer))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.TB = t
			o := w.issuer()
			w.named("hello", serve(t, ticks).URL)
			g := w.gate(o.trusted)
			w.put(state.AppKey(consumer), state.App{Version: state.Current(), Name: "app", Created: time.Now()})
			claims, key := claimsOf(t, w.token(consumer)), kid
			if c.other {
				claims, key = o.claims(map[string]any{"sub": consumer}), otherKid
			}
			ends := time.Now().Add(soon)
			claims["exp"] = ends.Unix()
			h := reading("/events", false)(t, g, "/services/hello", asToken(w.sign(w.key, key, claims)))
			require.NoError(t, h.talk())
			if c.before != nil {
				c.before(w, g, o)
			}
			time.Sleep(time.Until(ends.Add(time.Second)))
			g.judged()
			require.NoError(t, h.talk(), "after it expired")
			if c.take != nil {
				c.take(w, g, o)
			}
			g.settled(t, h, c.ends)
		})
	}
}

// TestInstancesMayHaveOneAddress puts several instances of a service at the address that a call goes to, and changes one of them.
func TestInstancesMayHaveOneAddress(t *testing.T) {
	t.Parallel()
	const low, high = "10000000-0000-4000-8000-000000000001", "f0000000-0000-4000-8000-000000000001"
	onRequest := func(s *mp1.ServiceInfo) {
		s.TransportInfo.ImplSpecificInfo = json.RawMessage(`{"gateway":{"sharing":"conditional"}}`)
	}
	for name, c := range map[string]struct {
		path   string
		first  bool // the other instance exists from the beginning
		change func(w *world, owner, other, address string)
		ends   bool
	}{
		"another app offers it on request": {change: func(w *world, _, other, address string) {
			w.setService(other, high, "svc", address, onRequest)
		}},
		"another app offers it, and the policy knows the owner": {change: func(w *world, owner, other, address string) {
			w.setService(other, high, "svc", address)
			w.policy("svc", api.Policy{Owners: []string{owner}})
		}},
		"one of two goes": {first: true, change: func(w *world, _, other, _ string) { w.delete(state.ServiceKey(other, high)) }},
		"the other goes":  {first: true, change: func(w *world, owner, _, _ string) { w.delete(state.ServiceKey(owner, low)) }},
		"it is registered anew": {change: func(w *world, owner, _, address string) {
			w.setService(owner, high, "svc", address)
			w.delete(state.ServiceKey(owner, low))
		}},
		"one that may be used has another address": {change: func(w *world, owner, other, address string) {
			w.setService(other, high, "svc", address, onRequest)
			w.setService(owner, low, "svc", "http://127.0.0.1:1")
		}},
		"both go": {first: true, ends: true, change: func(w *world, owner, other, _ string) {
			w.delete(state.ServiceKey(owner, low))
			w.delete(state.ServiceKey(other, high))
		}},
		"one goes, and the other is shared on request": {first: true, ends: true, change: func(w *world, owner, other, address string) {
			w.setService(other, high, "svc", address, onRequest)
			w.delete(state.ServiceKey(owner, low))
		}},
		"the one that is called goes": {path: "/instances/" + low, first: true, ends: true, change: func(w *world, owner, _, _ string) {
			w.delete(state.ServiceKey(owner, low))
		}},
		"one goes that is not called": {path: "/instances/" + low, first: true, change: func(w *world, _, other, _ string) {
			w.delete(state.ServiceKey(other, high))
		}},
		"another service is at the address": {ends: true, change: func(w *world, owner, other, address string) {
			w.setService(other, high, "else", address)
			w.delete(state.ServiceKey(owner, low))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.TB = t
			owner, other, me := w.app(), w.app(), w.app()
			address := serve(t, ticks).URL
			w.setService(owner, low, "svc", address)
			if c.first {
				w.setService(other, high, "svc", address)
			}
			g := w.gate()
			if c.path == "" {
				c.path = "/services/svc"
			}
			h := reading("/events", false)(t, g, c.path, asToken(w.token(me)))
			require.NoError(t, h.talk())
			c.change(w, owner, other, address)
			g.settled(t, h, c.ends)
		})
	}
}

// TestAnswersThatComeAfterAChange has a service answer after the right to the answer may have ended.
func TestAnswersThatComeAfterAChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(w *world, me, owner, id string)
		status int
	}{
		"nothing":          {func(*world, string, string, string) {}, 200},
		"others concerned": {func(w *world, _, _, _ string) { w.policy("else", api.Policy{Default: api.Deny}) }, 200},
		"the policy":       {func(w *world, _, _, _ string) { w.policy("hello", api.Policy{Default: api.Deny}) }, 403},
		"the credential":   {func(w *world, me, _, _ string) { w.delete(state.CredentialKey("ak-" + me)) }, 401},
		"the consumer":     {func(w *world, me, _, _ string) { w.delete(state.AppKey(me)) }, 403},
		// The service has answered, and nobody has lost a right.
		"the service": {func(w *world, _, owner, id string) { w.delete(state.ServiceKey(owner, id)) }, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.TB = t
			asked, answered := make(chan struct{}), make(chan struct{})
			owner, id := w.named("hello", serve(t, func(rw http.ResponseWriter, _ *http.Request) {
				close(asked)
				<-answered
				_, _ = rw.Write([]byte("secret"))
			}).URL)
			g := w.gate()
			me := w.app()
			proof := asToken(w.token(me))
			got := make(chan *answer, 1)
			go func() {
				a, err := g.try(http.MethodGet, "/services/hello/", nil, field(proof[0], proof[1]))
				if err != nil {
					t.Error(err)
				}
				got <- a
			}()
			<-asked
			c.change(w, me, owner, id)
			close(answered)
			a := <-got
			require.Equal(t, c.status, a.StatusCode, a.body)
			require.Equal(t, c.status == http.StatusOK, a.body == "secret")
		})
	}
}

// TestConnectionsOfEndedCallsAreClosed ends an HTTP/1.1 call whose body has been read and whose answer has not begun.
func TestConnectionsOfEndedCallsAreClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	read := make(chan struct{})
	w.named("hello", serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = r.Body.Read(make([]byte, 1))
		for {
			if _, err := r.Body.Read(make([]byte, 4096)); err != nil {
				break
			}
		}
		close(read)
		<-r.Context().Done()
	}).URL)
	g := w.gate()
	token := w.token(w.app())
	l := g.dial()
	require.NoError(t, l.SetDeadline(time.Now().Add(time.Minute)))
	l.send("POST /services/hello/x HTTP/1.1\nHost: a\nAuthorization: Bearer " + token + "\nContent-Length: 102400\n\n")
	l.write(string(make([]byte, 102400)))
	<-read
	w.policy("hello", api.Policy{Default: api.Deny})
	resp, err := http.ReadResponse(l.in, nil)
	require.NoError(t, err)
	_ = resp.Body.Close()
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
	require.True(t, resp.Close, "the next request would be lost")
}
