package blackbox

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestCredentialsHaveTheShapesOfEdgeGallery(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	manager := p.Manager(t)
	id, ak, sk := uuid.NewString(), characters(14)+"_+/=_=", characters(60)+"_+/="
	body := object{
		"authInfo": object{"credentials": object{"accessKeyId": ak, "secretKey": sk, "appName": "sent by lcmcontroller"}},
		"appInfo":  object{"appName": "demo", "requiredServices": []any{"rnis", "location"}},
	}
	put := manager.Put(harness.ConfsPath(id), body).Is(200).Object()
	require.Equal(t, object{"accessKeyId": ak}, put["authInfo"].(object)["credentials"])
	require.Equal(t, object{"appName": "demo", "requiredServices": []any{"rnis", "location"}}, put["appInfo"])

	record := manager.Get(harness.ConfsPath(id)).Is(200).Object()
	require.Equal(t, id, record["app_ins_id"])
	require.Equal(t, ak, record["ak"])
	require.Equal(t, "demo", record["app_name"])
	require.JSONEq(t, `["rnis","location"]`, record["required_services"].(string))
	require.Equal(t, true, record["enabled"])
	require.Len(t, record["secrets"], 1)
	require.NotContains(t, record, "sk")
	require.NotContains(t, record, "nonce")

	t.Run("null members count as absent", func(t *testing.T) {
		id := uuid.NewString()
		p.Manager(t).Put(harness.ConfsPath(id), `{"authInfo":{"credentials":{"accessKeyId":null,"secretKey":null}},"appInfo":{"appName":null,"requiredServices":null}}`).Is(200)
		require.Equal(t, "[]", p.Manager(t).Get(harness.ConfsPath(id)).Is(200).Object()["required_services"])
	})
	t.Run("what is deleted is gone", func(t *testing.T) {
		var said string
		p.Manager(t).Delete(harness.ConfsPath(id)).Is(200).Into(&said)
		require.NotEmpty(t, said)
		p.Manager(t).Get(harness.ConfsPath(id)).Problem(404)
		p.Manager(t).Delete(harness.ConfsPath(id)).Problem(404)
		oauthError(t, harness.Keys{AccessKeyID: ak, SecretKey: sk}.Ask(p.Auth(t)), 401, "invalid_client")
	})
}

func TestKeysThatAreNotGivenAreGenerated(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	manager := p.Manager(t)
	for name, credentials := range map[string]object{
		"neither": {}, "the access key": {"accessKeyId": characters(20)}, "the secret key": {"secretKey": characters(64)},
	} {
		t.Run(name, func(t *testing.T) {
			keys := harness.Provision(p.Manager(t), object{"authInfo": object{"credentials": credentials}})
			require.Regexp(t, `^[A-Za-z0-9_+/=]{20}$`, keys.AccessKeyID)
			require.Regexp(t, `^[A-Za-z0-9_+/=]{64}$`, keys.SecretKey)
			if ak, given := credentials["accessKeyId"]; given {
				require.Equal(t, ak, keys.AccessKeyID)
			}
			keys.Fetch(p.Auth(t))
		})
	}
	require.Len(t, manager.Get("/mep/appMng/v1/applications").Is(200).Array(), 3)
}

func TestTheSamePutTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	manager := p.Manager(t)
	for name, body := range map[string]object{
		"with keys": but(confs(harness.Keys{AccessKeyID: characters(20), SecretKey: characters(64)}), "appInfo.requiredServices", []any{"a", "b"}), "without": {},
	} {
		t.Run(name, func(t *testing.T) {
			id := uuid.NewString()
			keys := harness.ProvisionAs(manager, id, body)
			token := keys.Fetch(p.Auth(t)).AccessToken
			before := manager.Get(harness.ConfsPath(id)).Is(200).Object()
			again := manager.Put(harness.ConfsPath(id), body).Is(200).Object()
			require.Equal(t, object{"accessKeyId": keys.AccessKeyID}, again["authInfo"].(object)["credentials"])
			require.Equal(t, before, manager.Get(harness.ConfsPath(id)).Is(200).Object())
			p.Client(t).With(token).Get(services).Is(200)
			keys.Fetch(p.Auth(t))
		})
	}
}

func TestAnAccessKeyBelongsToOneApp(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	manager := p.Manager(t)
	taken := harness.Provision(manager, nil)
	theft := harness.Keys{AccessKeyID: taken.AccessKeyID, SecretKey: characters(64)}
	manager.Put(harness.ConfsPath(uuid.NewString()), confs(theft)).Problem(409)
	manager.Put(harness.ConfsPath(uuid.NewString()), confs(harness.Keys{AccessKeyID: p.Bootstrap(t).AccessKeyID, SecretKey: characters(64)})).Problem(409)
	taken.Fetch(p.Auth(t))
	require.Len(t, manager.Get("/mep/appMng/v1/applications").Is(200).Array(), 1)

	t.Run("also when several want it at the same time", func(t *testing.T) {
		for range 5 {
			ak := characters(20)
			type outcome struct {
				keys   harness.Keys
				status int
			}
			outcomes := make(chan outcome, 8)
			var all sync.WaitGroup
			for range cap(outcomes) {
				all.Go(func() {
					k := harness.Keys{AppInstanceID: uuid.NewString(), AccessKeyID: ak, SecretKey: characters(64)}
					if a, err := manager.Try("PUT", harness.ConfsPath(k.AppInstanceID), confs(k)); err == nil {
						outcomes <- outcome{k, a.Status}
					}
				})
			}
			all.Wait()
			close(outcomes)
			won := 0
			for o := range outcomes {
				if o.status == 200 {
					won++
					require.Equal(t, o.keys.AppInstanceID, claims(t, o.keys.Fetch(p.Auth(t)).AccessToken)["sub"])
				} else {
					require.Equal(t, 409, o.status)
					p.Manager(t).Get(harness.ConfsPath(o.keys.AppInstanceID)).Problem(404)
				}
			}
			require.Equal(t, 1, won)
		}
	})
}

func TestPutsOfOneAppAtTheSameTimeLeaveOneAccessKey(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	manager := p.Manager(t)
	for _, given := range []bool{true, false} {
		t.Run(fmt.Sprintf("keys given: %t", given), func(t *testing.T) {
			id := uuid.NewString()
			var mu sync.Mutex
			var made []harness.Keys
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					k := harness.Keys{AccessKeyID: characters(20), SecretKey: characters(64)}
					body := object{}
					if given {
						body = confs(k)
					}
					a, err := manager.Try("PUT", harness.ConfsPath(id), body)
					if err != nil || a.Status != 200 {
						return
					}
					credentials := a.Object()["authInfo"].(object)["credentials"].(object)
					k.AccessKeyID = credentials["accessKeyId"].(string)
					if !given {
						k.SecretKey, _ = credentials["secretKey"].(string)
					}
					mu.Lock()
					defer mu.Unlock()
					made = append(made, k)
				})
			}
			all.Wait()
			require.NotEmpty(t, made)
			ak := p.Manager(t).Get(harness.ConfsPath(id)).Is(200).Object()["ak"]
			good, secrets := 0, 0
			for _, k := range made {
				if k.SecretKey == "" {
					continue // the app had its keys when this one came
				}
				secrets++
				switch k.Ask(p.Auth(t)).Status {
				case 200:
					good++
					require.Equal(t, ak, k.AccessKeyID)
				case 401:
				default:
					t.Fatal("neither good nor bad")
				}
			}
			require.Equal(t, 1, good, "of %d that were answered 200, %d with a secret", len(made), secrets)
			if !given {
				require.Equal(t, 1, secrets, "one request made the keys, the others found them")
			}
		})
	}
}

func TestARotatedSecretKeyStaysGoodForTheOverlap(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	manager := p.Manager(t)
	a, old := appOf(t, p)
	path := harness.ConfsPath(old.AppInstanceID)
	rotate := func(body object) harness.Keys {
		res := manager.Post(path+"/rotate", body).Is(200).Object()
		require.Equal(t, old.AccessKeyID, res["accessKeyId"])
		secret, _ := res["secretKey"].(string)
		return harness.Keys{AppInstanceID: old.AppInstanceID, AccessKeyID: old.AccessKeyID, SecretKey: secret}
	}
	next := rotate(object{"overlapSeconds": 3600})
	old.Fetch(p.Auth(t))
	next.Fetch(p.Auth(t))
	signature{Keys: old}.ask(p.Auth(t)).Is(200)
	signature{Keys: next}.ask(p.Auth(t)).Is(200)
	require.Len(t, manager.Get(path).Is(200).Object()["secrets"], 2)
	a.Get(a.services()).Is(200)
	p.Kill()
	p.Restart()
	old.Fetch(p.Auth(t))
	next.Fetch(p.Auth(t))

	last := rotate(object{"overlapSeconds": 1})
	last.Fetch(p.Auth(t))
	oauthError(t, old.Ask(p.Auth(t)), 401, "invalid_client") // two at most
	harness.Eventually(t, "the one before ends", func() error {
		answer := next.Ask(p.Auth(t))
		return harness.Not(answer.Status == 401, "answered %d", answer.Status)
	})
	last.Fetch(p.Auth(t))
	require.Len(t, manager.Get(path).Is(200).Object()["secrets"], 1)
	t.Run("at once without an overlap", func(t *testing.T) {
		secret := characters(64)
		require.NotContains(t, p.Manager(t).Post(path+"/rotate", object{"secretKey": secret, "overlapSeconds": 0}).Is(200).Object(), "secretKey")
		oauthError(t, last.Ask(p.Auth(t)), 401, "invalid_client")
		harness.Keys{AccessKeyID: old.AccessKeyID, SecretKey: secret}.Fetch(p.Auth(t))
		p.Manager(t).Post(path+"/rotate", object{"secretKey": secret}).Problem(409)
	})
	a.Get(a.services()).Is(200)
	auditOf(t, p, "the rotation", func(e object) bool { return e["action"] == "credential.rotate" && e["target"] == old.AppInstanceID })
}

func TestDisabledCredentialsAreRefusedUntilTheyAreEnabled(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	a, keys := appOf(t, p)
	path := harness.ConfsPath(keys.AppInstanceID)
	manager := p.Manager(t)
	require.Equal(t, false, manager.Patch(path, object{"enabled": false}).Is(200).Object()["enabled"])
	oauthError(t, keys.Ask(p.Auth(t)), 401, "invalid_client")
	oauthError(t, signature{Keys: keys}.ask(p.Auth(t)), 401, "invalid_client")
	unauthenticated(t, a.Get(a.services()), "invalid_token")
	manager.Put(path, object{}).Is(200)
	oauthError(t, keys.Ask(p.Auth(t)), 401, "invalid_client")
	manager.Patch(path, object{"enabled": true}, harness.Header("Content-Type", "application/merge-patch+json")).Is(200)
	unauthenticated(t, a.Get(a.services()), "invalid_token")
	fresh := app{Client: p.Client(t).With(keys.Fetch(p.Auth(t)).AccessToken), id: a.id}
	fresh.Get(fresh.services()).Is(200)
}

func TestCredentialsThatAreNotAcceptable(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	manager := p.Manager(t)
	id := uuid.NewString()
	secret := "abc!" + characters(60)
	credentials := func(name string, v any) object { return object{"authInfo": object{"credentials": object{name: v}}} }
	many := make([]any, 257)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, x := range map[string]struct {
		body  any
		param string
	}{
		"a short access key":           {credentials("accessKeyId", characters(19)), "authInfo.credentials.accessKeyId"},
		"a long access key":            {credentials("accessKeyId", characters(21)), "authInfo.credentials.accessKeyId"},
		"an access key with a slash..": {credentials("accessKeyId", "../../../../../../.."), "authInfo.credentials.accessKeyId"},
		"an access key with a space":   {credentials("accessKeyId", "a "+characters(18)), "authInfo.credentials.accessKeyId"},
		"a number as access key":       {credentials("accessKeyId", 12345), "authInfo.credentials.accessKeyId"},
		"a short secret key":           {credentials("secretKey", characters(63)), "authInfo.credentials.secretKey"},
		"a secret with a bad letter":   {credentials("secretKey", secret), "authInfo.credentials.secretKey"},
		"an object as secret":          {credentials("secretKey", object{"a": secret}), "authInfo.credentials.secretKey"},
		"a list of credentials":        {object{"authInfo": []any{secret}}, "authInfo"},
		"a long name":                  {object{"appInfo": object{"appName": strings.Repeat("n", 129)}}, "appInfo.appName"},
		"a name with a line feed":      {object{"appInfo": object{"appName": "a\nb"}}, "appInfo.appName"},
		"too many services":            {object{"appInfo": object{"requiredServices": many}}, "appInfo.requiredServices"},
		"a service without a name":     {object{"appInfo": object{"requiredServices": []any{"a", ""}}}, "appInfo.requiredServices[1]"},
		"services as text":             {object{"appInfo": object{"requiredServices": "*"}}, "appInfo.requiredServices"},
		"a word for a boolean":         {object{"authInfo": object{"refreshTokens": "yes"}}, "authInfo.refreshTokens"},
	} {
		t.Run(name, func(t *testing.T) {
			problem := p.Manager(t).Put(harness.ConfsPath(id), x.body).Problem(400)
			require.Contains(t, problem.Names(), x.param)
			require.NotContains(t, fmt.Sprint(problem), secret)
		})
	}
	for name, body := range map[string]string{"no JSON": "{", "an array": "[]", "nothing": "", "a null": "null", "two values": "{}{}", "a duplicate": `{"authInfo":{},"authInfo":{}}`} {
		t.Run(name, func(t *testing.T) { p.Manager(t).Put(harness.ConfsPath(id), body).Problem(400) })
	}
	for _, bad := range []string{"x", uuid.NewString() + "x", strings.ReplaceAll(uuid.NewString(), "-", ""), "%7B" + uuid.NewString()[2:] + "%7D", "mepm"} {
		for _, method := range []string{"PUT", "GET", "DELETE", "PATCH"} {
			manager.Do(method, harness.ConfsPath(bad), object{"enabled": true}).Problem(404)
		}
	}
	for _, patch := range []object{{}, {"enabled": "no"}, {"enabled": nil}, {"accessKeyId": characters(20)}} {
		manager.Patch(harness.ConfsPath(id), patch).Problem(400)
	}
	manager.Patch(harness.ConfsPath(id), object{"enabled": false}).Problem(404)
	manager.Post(harness.ConfsPath(id)+"/rotate", object{}).Problem(404)
	for _, rotation := range []object{{"overlapSeconds": -1}, {"overlapSeconds": 2592001}, {"overlapSeconds": "1h"}, {"overlapSeconds": 1e40}, {"secretKey": "short"}} {
		manager.Post(harness.ConfsPath(id)+"/rotate", rotation).Problem(400)
	}
	manager.Get(harness.ConfsPath(id) + "?x=1").Problem(400)
	manager.Put(harness.ConfsPath(id), "a: b", harness.Header("Content-Type", "application/yaml")).Problem(415)
	manager.Put(harness.ConfsPath(id), `{"appInfo":{"appName":"`+strings.Repeat("n", 70<<10)+`"}}`).Problem(413)
	manager.Get(harness.ConfsPath(id)).Problem(404)
	require.Empty(t, manager.Get("/mep/appMng/v1/applications").Is(200).Array())
}
