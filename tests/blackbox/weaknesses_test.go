package blackbox

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/openapi"
	"github.com/openmep/mep/tests/harness"
	"github.com/openmep/mep/tests/process"
)

// S-1: who calls is said in one place, which is the one that is verified.
func TestOnlyTheOneAuthorizationHeaderSaysWhoCalls(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	mine, _ := appOf(t, p)
	victim, _ := appOf(t, p)
	svc := victim.register(own("victims"))
	stranger := p.Client(t)
	token := func(a app) string {
		var header string
		a.Get(services, func(r *http.Request) { header = r.Header.Get("Authorization") }).Is(200)
		return strings.TrimPrefix(header, "Bearer ")
	}
	good, others := token(mine), token(victim)
	forged := "eyJhbGciOiJub25lIn0.eyJzdWIiOiI" + "x.x"

	t.Run("a token in the query is none", func(t *testing.T) {
		for _, name := range []string{"jwt", "access_token", "token"} {
			unauthenticated(t, stranger.Get(victim.services()+"?"+name+"="+others), "")
			unauthenticated(t, stranger.Get(victim.services()+"?"+name+"="+others, harness.Header("Authorization", "Bearer "+forged)), "invalid_token")
			// A parameter nobody knows is ignored or refused, but never believed.
			mine.Delete(victim.service(svc.id) + "?" + name + "=" + others).Problem(403)
		}
	})
	t.Run("nor is one in a cookie or a form", func(t *testing.T) {
		unauthenticated(t, stranger.Get(victim.services(), harness.Header("Cookie", "jwt="+others+"; access_token="+others)), "")
		unauthenticated(t, stranger.Post(victim.services(), "access_token="+others, harness.AsForm()), "")
		unauthenticated(t, stranger.Get(victim.services(), harness.Header("Proxy-Authorization", "Bearer "+others)), "")
	})
	t.Run("two headers are refused, in any order", func(t *testing.T) {
		for _, values := range [][]string{
			{"Bearer " + good, "Bearer " + others}, {"Bearer " + others, "Bearer " + good}, {"Bearer " + good, "Bearer " + good},
			{"Bearer " + forged, "Bearer " + others}, {"Basic eDp5", "Bearer " + others},
		} {
			a := stranger.Get(victim.services(), harness.Headers("Authorization", values...))
			a.Problem(400)
			require.Contains(t, a.Header.Get("WWW-Authenticate"), `error="invalid_request"`)
		}
	})
	t.Run("two tokens in one header are refused", func(t *testing.T) {
		for _, value := range []string{
			"Bearer " + good + ", Bearer " + others, "Bearer " + good + "," + others, "Bearer " + good + " " + others,
			"Bearer \t" + others, "Bearer", "Bearer ", "Bearer\u00a0" + others,
		} {
			a := stranger.Get(victim.services(), harness.Header("Authorization", value))
			require.Equal(t, 401, a.Status, "%q", value)
		}
	})
	t.Run("the headers by which EdgeGallery named the caller are nothing", func(t *testing.T) {
		for _, name := range []string{"X-AppinstanceID", "X-AppInstanceId", "X-Consumer-Username", "X-ConsumerId", "X-Credential-Identifier", "X-Authenticated-Userid"} {
			unauthenticated(t, stranger.Get(victim.services(), harness.Header(name, victim.id)), "")
			mine.Get(victim.services(), harness.Header(name, victim.id)).Problem(403)
			mine.Get(mine.services(), harness.Header(name, victim.id)).Is(200)
		}
	})
	t.Run("nor are those that rewrite a request", func(t *testing.T) {
		for _, name := range []string{"X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri", "X-HTTP-Method-Override"} {
			unauthenticated(t, stranger.Get(services, harness.Header(name, "/mec_service_mgmt/v1/transports")), "")
		}
	})
	t.Run("the scheme is not case-sensitive", func(t *testing.T) {
		p.Client(t).Get(mine.services(), harness.Header("Authorization", "bearer "+good)).Is(200)
	})
	victim.Get(victim.service(svc.id)).Is(200)
}

// S-2: credentials are changed by the manager only, and seen by nobody else.
func TestCredentialsAreManagedWithTheScopeMm5Only(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	manager := p.Manager(t)
	victim := harness.Provision(manager, nil)
	app := p.NewApp(t)
	before := manager.Get(harness.ConfsPath(victim.AppInstanceID)).Is(200).Object()
	opsOnly := p.Bootstrap(t).Fetch(p.Auth(t), "ops").AccessToken
	callers := map[string]struct {
		client *harness.Client
		status int
	}{
		"nobody":                           {p.Auth(t), 401},
		"somebody with garbage":            {p.Auth(t).With("garbage"), 401},
		"an app":                           {p.Auth(t).With(app.Token.AccessToken), 403},
		"a manager who asked for ops only": {p.Auth(t).With(opsOnly), 403},
	}
	body := object{"authInfo": object{"credentials": object{"accessKeyId": characters(20), "secretKey": characters(64)}}}
	for name, c := range callers {
		t.Run(name, func(t *testing.T) {
			for _, id := range []string{victim.AppInstanceID, app.AppInstanceID, uuid.NewString(), "x"} {
				path := harness.ConfsPath(id)
				for _, a := range []*harness.Answer{
					c.client.Put(path, body), c.client.Get(path), c.client.Patch(path, object{"enabled": false}), c.client.Delete(path),
					c.client.Post(path+"/rotate", object{"secretKey": characters(64)}), c.client.Get("/mep/appMng/v1/applications"),
				} {
					a.Problem(c.status)
					require.Contains(t, a.Header.Get("WWW-Authenticate"), `scope="mm5"`)
					require.NotContains(t, string(a.Body), victim.AccessKeyID)
				}
			}
			// The headers EdgeGallery's gateway set open nothing.
			c.client.Get(harness.ConfsPath(victim.AppInstanceID), harness.Header("X-Real-Ip", "127.0.0.1")).Problem(c.status)
		})
	}
	require.Equal(t, before, manager.Get(harness.ConfsPath(victim.AppInstanceID)).Is(200).Object())
	victim.Fetch(p.Auth(t))
	manager.Put(harness.ConfsPath(victim.AppInstanceID), object{}).Is(200)
}

// S-3: what the documents do not say is open is closed.
func TestNothingIsServedWithoutAToken(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	raw := p.Unchecked(t)
	tried := 0
	for document, listener := range map[string]string{"mec_service_mgmt": "mp1", "mep_auth": "auth"} {
		text, ok := openapi.YAML(document)
		require.True(t, ok)
		doc, err := openapi3.NewLoader().LoadFromData(text)
		require.NoError(t, err)
		prefixes := []string{""}
		if listener == "mp1" {
			prefixes = []string{"/mec_service_mgmt/v1", "/mep/mec_service_mgmt/v1"}
		}
		for template, item := range doc.Paths.Map() {
			path := strings.NewReplacer("{appInstanceId}", uuid.NewString(), "{serviceId}", uuid.NewString(), "{subscriptionId}", uuid.NewString()).Replace(template)
			for method, op := range item.Operations() {
				if op.Security != nil && slices.ContainsFunc(*op.Security, func(s openapi3.SecurityRequirement) bool { return len(s) == 0 }) ||
					template == "/mep/token" {
					continue // public, or where tokens come from
				}
				for _, prefix := range prefixes {
					a := raw.Do(method, p.URL(listener)+prefix+path, nil)
					require.Equal(t, 401, a.Status, "%s %s%s", method, prefix, path)
					tried++
				}
			}
		}
	}
	require.Greater(t, tried, 20)
	t.Run("nor are the interfaces EdgeGallery left open", func(t *testing.T) {
		for _, path := range []string{
			"/v4/default/registry/microservices", "/registry/v3/microservices", "/v4/default/admin/dump", "/pacts", "/version", "/metrics", "/debug/pprof/",
			"/mepcfg/app_lcm/v1/applications/x/appd_configuration", "/mepcfg/mec_platform_config/v1/capabilities", "/mep/service_govern/v1/services",
			"/mep/service_govern/v1/kong_log", "/mep/mec_app_support/v1/applications/x/AppInstanceTermination", "/mep/mec_app_support/v1/applications/x/callback",
		} {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
				for _, listener := range []string{"mp1", "auth"} {
					a := raw.Do(method, p.URL(listener)+path, nil)
					require.Contains(t, []int{401, 404, 405}, a.Status, "%s %s at %s", method, path, listener)
				}
			}
		}
	})
}

func TestWhatDoesNotExistIsBehindTheGuardToo(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	a, _ := appOf(t, p)
	stranger := p.Client(t)
	for path, method := range map[string]string{
		"/nonsense": "GET", root + "/nonsense": "GET", services: "DELETE", root + "/transports": "POST", root + "/transports/": "GET",
		root + "/applications/" + a.id + "/nonsense": "GET", services + "/" + uuid.NewString(): "GET", services + "?nonsense=1": "GET",
	} {
		unauthenticated(t, stranger.Do(method, path, nil), "")
		require.Contains(t, []int{400, 404, 405}, a.Do(method, path, nil).Status, path)
	}
	head := stranger.Head(services)
	head.Is(401)
	require.Empty(t, head.Body)
	require.NotEmpty(t, head.Header.Get("WWW-Authenticate"))
	a.Head(services).Is(200)
	require.Equal(t, 401, stranger.Do("OPTIONS", services, nil).Status)
}

// S-4: a signature is good for one request, at one time, for one body.
func TestASignatureIsGoodOnce(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys := harness.Provision(p.Manager(t), nil)
	at := aged(0)
	once := signature{Keys: keys, date: at}
	once.ask(p.Auth(t)).Is(200)
	require.Contains(t, oauthError(t, once.ask(p.Auth(t)), 401, "invalid_client"), "used before")
	t.Run("at any listener", func(t *testing.T) {
		authority := strings.TrimPrefix(p.URL("auth"), "https://")
		at := signature{Keys: keys, date: at, host: authority}
		oauthError(t, at.ask(p.AuthAtMp1(t)), 401, "invalid_client")
	})
	t.Run("from any address", func(t *testing.T) {
		oauthError(t, once.ask(p.AuthFrom(t, "127.0.0.9")), 401, "invalid_client")
	})
	t.Run("by one of many at the same time", func(t *testing.T) {
		racing := signature{Keys: keys, date: aged(time.Minute)}
		statuses := make(chan int, 16)
		var all sync.WaitGroup
		for range cap(statuses) {
			all.Go(func() {
				a, err := p.Auth(t).Try("POST", "/mep/token", nil, racing.option())
				if err == nil {
					statuses <- a.Status
				}
			})
		}
		all.Wait()
		close(statuses)
		good := 0
		for s := range statuses {
			if s == 200 {
				good++
			}
		}
		require.Equal(t, 1, good)
	})
	t.Run("also after the process was killed", func(t *testing.T) {
		host := strings.TrimPrefix(p.URL("auth"), "https://") // the port is another after the start
		late := signature{Keys: keys, date: aged(2 * time.Minute), host: host}
		late.ask(p.Auth(t)).Is(200)
		p.Kill()
		p.Restart()
		oauthError(t, late.ask(p.Auth(t)), 401, "invalid_client")
		once.host = host
		oauthError(t, once.ask(p.Auth(t)), 401, "invalid_client")
	})
}

func TestASignatureIsGoodWithinItsWindow(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys := harness.Provision(p.Manager(t), nil)
	c := p.Auth(t)
	for ago, good := range map[time.Duration]bool{
		14 * time.Minute: true, -14 * time.Minute: true, 16 * time.Minute: false, -16 * time.Minute: false, 365 * 24 * time.Hour: false,
		-365 * 24 * time.Hour: false,
	} {
		a := signature{Keys: keys, date: aged(ago)}.ask(c)
		if good {
			a.Is(200)
		} else {
			oauthError(t, a, 401, "invalid_client")
		}
	}
}

func TestASignatureCoversWhatIsSent(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys := harness.Provision(p.Manager(t), nil)
	c := p.Auth(t)
	body := []byte(`{"scope":"mp1"}`)
	good := signature{Keys: keys, body: body, date: aged(time.Second)}
	c.Post("/mep/token", body, good.option()).Is(200)
	for name, send := range map[string]func(signature) *harness.Answer{
		"another body":      func(s signature) *harness.Answer { return c.Post("/mep/token", `{"scope":"mm5"}`, s.option()) },
		"a body taken away": func(s signature) *harness.Answer { return c.Post("/mep/token", nil, s.option()) },
		"a body put in":     func(s signature) *harness.Answer { s.body = nil; return c.Post("/mep/token", body, s.option()) },
		"a body in chunks":  func(s signature) *harness.Answer { return c.Post("/mep/token", strings.NewReader("other"), s.option()) },
		"another date": func(s signature) *harness.Answer {
			return c.Post("/mep/token", body, s.option(), harness.Header("X-Sdk-Date", aged(0)))
		},
		"another Content-Type": func(s signature) *harness.Answer {
			return c.Post("/mep/token", body, s.option(), harness.Header("Content-Type", "text/plain"))
		},
		"another host": func(s signature) *harness.Answer {
			return c.Post("/mep/token", body, s.option(), func(r *http.Request) { r.Host = "other.example" })
		},
		"a query put in": func(s signature) *harness.Answer {
			return c.Post("/mep/token", body, s.option(), func(r *http.Request) { r.URL.RawQuery = "a=1" })
		},
		"another path": func(s signature) *harness.Answer {
			return c.Post("/mep/token", body, func(r *http.Request) { r.URL.Path = "/mep/other" }, s.option(), func(r *http.Request) { r.URL.Path = "/mep/token" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			oauthError(t, send(signature{Keys: keys, body: body, date: aged(10 * time.Second)}), 401, "invalid_client")
		})
	}
	t.Run("and more headers when the client wants that", func(t *testing.T) {
		s := signature{Keys: keys, headers: []string{"content-type", "x-a"}, date: aged(20 * time.Second)}
		c.Post("/mep/token", nil, harness.Header("X-A", "1"), s.option()).Is(200)
		s.date = aged(21 * time.Second)
		oauthError(t, c.Post("/mep/token", nil, harness.Header("X-A", "1"), s.option(), harness.Header("X-A", "2")), 401, "invalid_client")
	})
}

// S-8: an app reaches its own resources only, and does not learn whether others exist.
func TestAnAppReachesItsOwnResourcesOnly(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	mine, _ := appOf(t, p)
	victim, _ := appOf(t, p)
	svc := victim.register(monitored("victims", 60))
	sub := victim.subscribe("http://192.0.2.1/cb", nil)
	ghost := app{Client: mine.Client, id: uuid.NewString()}
	for name, paths := range map[string]func(app) (method, path string, body any){
		"list services":        func(a app) (string, string, any) { return "GET", a.services(), nil },
		"register":             func(a app) (string, string, any) { return "POST", a.services(), own("x") },
		"read a service":       func(a app) (string, string, any) { return "GET", a.service(svc.id), nil },
		"look at a service":    func(a app) (string, string, any) { return "HEAD", a.service(svc.id), nil },
		"replace a service":    func(a app) (string, string, any) { return "PUT", a.service(svc.id), own("x") },
		"remove a service":     func(a app) (string, string, any) { return "DELETE", a.service(svc.id), nil },
		"beat":                 func(a app) (string, string, any) { return "PATCH", a.liveness(svc.id), object{"state": "ACTIVE"} },
		"see the heart":        func(a app) (string, string, any) { return "GET", a.liveness(svc.id), nil },
		"list subscriptions":   func(a app) (string, string, any) { return "GET", a.subscriptions(), nil },
		"subscribe":            func(a app) (string, string, any) { return "POST", a.subscriptions(), subscription("http://192.0.2.1/") },
		"read a subscription":  func(a app) (string, string, any) { return "GET", a.subscription(sub), nil },
		"end a subscription":   func(a app) (string, string, any) { return "DELETE", a.subscription(sub), nil },
		"read one of no one's": func(a app) (string, string, any) { return "GET", a.subscription(uuid.NewString()), nil },
		"send garbage":         func(a app) (string, string, any) { return "POST", a.services(), "{" },
	} {
		t.Run(name, func(t *testing.T) {
			var bodies []string
			for _, a := range []app{victim, ghost, victim.under("/mep")} {
				method, path, body := paths(a)
				answer := mine.Do(method, path, body)
				answer.Is(403)
				text := string(answer.Body)
				if method != "HEAD" {
					text = fmt.Sprint(without(answer.Object(), "instance"))
					require.NotContains(t, text, victim.id)
				}
				bodies = append(bodies, text)
			}
			require.Equal(t, bodies[0], bodies[1], "an app that exists and one that does not look alike")
		})
	}
	t.Run("by a path that takes a detour", func(t *testing.T) {
		for _, path := range []string{
			root + "/applications/" + mine.id + "/../" + victim.id + "/services/" + svc.id,
			root + "/applications/" + mine.id + "%2F..%2F" + victim.id + "/services/" + svc.id,
			root + "/applications/" + mine.id + "/services/..%2F..%2F" + victim.id + "%2Fservices%2F" + svc.id,
			root + "/applications//" + victim.id + "/services/" + svc.id,
			root + "/applications/" + victim.id + "%00/services/" + svc.id,
			root + "/applications/%20" + victim.id + "/services/" + svc.id,
			root + "/applications/" + victim.id + ";" + mine.id + "/services/" + svc.id,
			root + "/applications/" + strings.ReplaceAll(victim.id, "-", "%2D") + "/services/" + svc.id,
		} {
			request := "DELETE " + path + " HTTP/1.1\r\nHost: mep\r\nAuthorization: Bearer " + tokenOf(t, mine) + "\r\nConnection: close\r\n\r\n"
			a, ok := p.Exchange(t, "mp1", "DELETE", []byte(request))
			require.True(t, ok, path)
			require.Contains(t, []int{400, 403, 404, 405}, a.Status, "%s: %s", path, a.Body)
		}
	})
	victim.Get(victim.service(svc.id)).Is(200)
	victim.Get(victim.subscription(sub)).Is(200)
}

// tokenOf is the token an app sends.
func tokenOf(t *testing.T, a app) string {
	t.Helper()
	var header string
	a.Get(root+"/transports", func(r *http.Request) { header = r.Header.Get("Authorization") }).Is(200)
	return strings.TrimPrefix(header, "Bearer ")
}

func TestAnAppInstanceIDIsTheSameInUpperCase(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	keys := harness.ProvisionAs(p.Manager(t), strings.ToUpper(uuid.NewString()), nil)
	token := keys.Fetch(p.Auth(t)).AccessToken
	require.Equal(t, strings.ToLower(keys.AppInstanceID), claims(t, token)["sub"])
	upper := app{Client: p.Client(t).With(token), id: keys.AppInstanceID}
	lower := app{Client: upper.Client, id: strings.ToLower(keys.AppInstanceID)}
	svc := upper.register(own("x"))
	lower.Get(lower.service(svc.id)).Is(200)
	upper.Get(upper.service(svc.id)).Is(200)
	lower.remove(svc.id)
	record := p.Manager(t).Get(harness.ConfsPath(lower.id)).Is(200).Object()
	require.Equal(t, lower.id, record["app_ins_id"])
	require.Len(t, p.Manager(t).Get("/mep/appMng/v1/applications").Is(200).Array(), 1)
}

// S-12: two installations have nothing in common.
func TestThereAreNoDefaultCredentials(t *testing.T) {
	t.Parallel()
	one, two := harness.Start(t, harness.Secure(), harness.Args("--auth-signature-window=0s")), harness.Start(t, harness.Secure())
	a, b := one.Bootstrap(t), two.Bootstrap(t)
	require.NotEqual(t, a.AccessKeyID, b.AccessKeyID)
	require.NotEqual(t, a.SecretKey, b.SecretKey)
	for _, name := range []string{"auth/seal.key", "pki/ca.key", "pki/ca.crt", "pki/server.key"} {
		require.NotEqual(t, written(t, filepath.Join(one.DataDir, name)), written(t, filepath.Join(two.DataDir, name)), name)
	}
	oauthError(t, b.Ask(one.Auth(t)), 401, "invalid_client")
	oauthError(t, katOne.signature().ask(one.Auth(t)), 401, "invalid_client")
	require.Empty(t, one.Manager(t).Get("/mep/appMng/v1/applications").Is(200).Array())
	unauthenticated(t, one.Auth(t).With(two.Bootstrap(t).Fetch(two.Auth(t)).AccessToken).Get("/mep/appMng/v1/applications"), "invalid_token")
}

// S-13: the parts that are not for the network are not on it.
func TestTheDatabaseIsForNobodyElse(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	socket := strings.TrimPrefix(strings.TrimSpace(string(written(t, filepath.Join(p.DataDir, "lock")))), "unix://")
	info, err := os.Stat(socket)
	require.NoError(t, err)
	closed := info.Mode().Perm()&0o077 == 0
	for dir := filepath.Dir(socket); len(dir) > 1 && !closed; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		require.NoError(t, err)
		closed = info.Mode().Perm()&0o077 == 0
	}
	require.True(t, closed, "%s can be reached by other users of the machine", socket)
	require.ElementsMatch(t, []string{p.Addr("mp1"), p.Addr("mm5"), p.Addr("auth"), p.Addr("ops"), p.Addr("dns"), p.Addr("dns-management"), p.Addr("gateway"), p.Addr("gateway-management")}, listening(t, p))
}

// listening lists the TCP addresses a process listens at, as the kernel knows them.
func listening(t *testing.T, p *harness.Process) []string {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", p.Pid())
	fds, err := os.ReadDir(proc + "/fd")
	require.NoError(t, err)
	sockets := make(map[string]bool)
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil {
			sockets[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
		}
	}
	var found []string
	for _, table := range []string{"tcp", "tcp6"} {
		for line := range strings.Lines(string(written(t, filepath.Join(proc, "net", table)))) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !sockets[f[9]] {
				continue
			}
			host, port, _ := strings.Cut(f[1], ":")
			address, err := hex.DecodeString(host)
			require.NoError(t, err)
			slices.Reverse(address) // within words; all are IPv4 here
			number, err := strconv.ParseUint(port, 16, 16)
			require.NoError(t, err)
			found = append(found, fmt.Sprintf("%s:%d", net.IP(address), number))
		}
	}
	return found
}

// S-14: what was given out can be taken back, at once.
func TestWhoTakesCredentialsAwayTakesTheirTokensAway(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(*harness.Client, harness.Keys){
		"by deletion": func(m *harness.Client, k harness.Keys) { m.Delete(harness.ConfsPath(k.AppInstanceID)).Is(200) },
		"by disabling": func(m *harness.Client, k harness.Keys) {
			m.Patch(harness.ConfsPath(k.AppInstanceID), object{"enabled": false}).Is(200)
		},
		"by another secret key": func(m *harness.Client, k harness.Keys) {
			m.Put(harness.ConfsPath(k.AppInstanceID), object{"authInfo": object{"credentials": object{"accessKeyId": k.AccessKeyID, "secretKey": characters(64)}}}).Is(200)
		},
		"by another access key": func(m *harness.Client, k harness.Keys) {
			m.Put(harness.ConfsPath(k.AppInstanceID), object{"authInfo": object{"credentials": object{"accessKeyId": characters(20)}}}).Is(200)
		},
		"by deletion and the same credentials anew": func(m *harness.Client, k harness.Keys) {
			m.Delete(harness.ConfsPath(k.AppInstanceID)).Is(200)
			m.Put(harness.ConfsPath(k.AppInstanceID), object{"authInfo": object{"credentials": object{"accessKeyId": k.AccessKeyID, "secretKey": k.SecretKey}}}).Is(200)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Secure())
			a, keys := appOf(t, p)
			bystander, _ := appOf(t, p)
			a.Get(a.services()).Is(200)
			take(p.Manager(t), keys)
			unauthenticated(t, a.Get(a.services()), "invalid_token")
			bystander.Get(bystander.services()).Is(200)
			p.Kill()
			p.Restart()
			unauthenticated(t, a.Get(a.services()), "invalid_token")
			bystander.Get(bystander.services()).Is(200)
		})
	}
}

// S-15: a secret that was given is known to who gave it.
func TestASecretIsShownOnceAndOnlyIfItWasGenerated(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	manager := p.Manager(t)
	secret := characters(64)
	id := uuid.NewString()
	path := harness.ConfsPath(id)
	answers := []*harness.Answer{
		manager.Put(path, object{"authInfo": object{"credentials": object{"secretKey": secret}}}).Is(200),
		manager.Put(path, object{"authInfo": object{"credentials": object{"secretKey": secret}}}).Is(200),
		manager.Put(path, object{}).Is(200), manager.Get(path).Is(200), manager.Get("/mep/appMng/v1/applications").Is(200),
		manager.Patch(path, object{"refreshTokens": true}).Is(200), manager.Post(path+"/rotate", object{"secretKey": characters(64)}).Is(200),
	}
	for _, a := range answers {
		require.NotContains(t, string(a.Body), secret)
		require.NotContains(t, string(a.Body), "secretKey", "%s", a.Body)
		require.NotContains(t, string(a.Body), "nonce")
	}
	made := manager.Post(path+"/rotate", nil).Is(200).Object()["secretKey"].(string)
	require.Len(t, made, 64)
	for _, a := range []*harness.Answer{manager.Get(path), manager.Put(path, object{}), manager.Get("/mep/appMng/v1/applications")} {
		require.NotContains(t, string(a.Is(200).Body), made)
	}
	require.Empty(t, holding(t, p.DataDir, made), "a secret key is on the disk as it is")
}

// S-16: rates are kept for each client, not for all together.
func TestWhoAsksTooOftenWaitsAlone(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), harness.Args("--auth-rate-source=1", "--auth-rate-source-burst=5"))
	keys, other := harness.Provision(p.Manager(t), nil), harness.Provision(p.Manager(t), nil)
	busy := p.AuthFrom(t, "127.0.0.66")
	limited := false
	for range 12 {
		if a := keys.Ask(busy); a.Status == 429 {
			oauthError(t, a, 429, "temporarily_unavailable")
			require.NotEmpty(t, a.Header.Get("Retry-After"))
			limited = true
		}
	}
	require.True(t, limited)
	other.Fetch(p.AuthFrom(t, "127.0.0.5"))
	keys.Fetch(p.AuthFrom(t, "127.0.0.6"))
	// A request that comes late on a busy machine may be let through, and takes the turn of the next.
	signed := busy.Post("/mep/token", nil, signature{Keys: other}.option())
	for range 20 {
		if signed.Status == 429 {
			break
		}
		signed = busy.Post("/mep/token", nil, signature{Keys: other}.option())
	}
	oauthError(t, signed, 429, "temporarily_unavailable")
}

func TestAnAccessKeyHasItsRateWhereverItIsUsed(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), harness.Args("--auth-rate-key=1", "--auth-rate-key-burst=5"))
	keys, other := harness.Provision(p.Manager(t), nil), harness.Provision(p.Manager(t), nil)
	limited := 0
	for i := range 24 {
		if keys.Ask(p.AuthFrom(t, fmt.Sprintf("127.0.0.%d", 10+i%2))).Status == 429 {
			limited++
		}
	}
	require.Positive(t, limited)
	other.Fetch(p.AuthFrom(t, "127.0.0.10"))
}

// S-17: a request for a token, good or bad, is cheap.
func TestARequestForATokenCostsLittle(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys := harness.Provision(p.Manager(t), nil)
	c := p.Auth(t)
	const requests = 200
	for name, ask := range map[string]func(int) *harness.Answer{
		"with a wrong signature": func(int) *harness.Answer {
			return signature{Keys: harness.Keys{AccessKeyID: keys.AccessKeyID, SecretKey: characters(64)}}.ask(c)
		},
		"with a right one": func(i int) *harness.Answer {
			return signature{Keys: keys, date: aged(time.Duration(i) * time.Second)}.ask(c)
		},
		"with an unknown access key": func(int) *harness.Answer { return wrong(c, harness.Keys{AccessKeyID: characters(20)}) },
	} {
		t.Run(name, func(t *testing.T) {
			before, err := process.CPU(p.Pid())
			require.NoError(t, err)
			for i := range requests {
				require.Contains(t, []int{200, 401}, ask(i).Status)
				if i%20 == 0 {
					keys.Fetch(c) // or else the key would be locked, and nothing be computed
				}
			}
			after, err := process.CPU(p.Pid())
			require.NoError(t, err)
			// EdgeGallery derived a key twice for each request, which takes 50 ms and more.
			require.Less(t, (after-before)/requests, 10*time.Millisecond)
		})
	}
}

// S-11 and the like: the listeners are TLS, and nothing else.
func TestPlainHTTPIsNotServedInOperation(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	for _, listener := range []string{"mp1", "auth"} {
		conn, err := net.Dial("tcp", p.Addr(listener))
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(harness.Patience)))
		_, err = conn.Write([]byte("GET /health HTTP/1.1\r\nHost: mep\r\n\r\n"))
		require.NoError(t, err)
		answer := make([]byte, 64)
		n, _ := conn.Read(answer)
		require.NotContains(t, string(answer[:n]), " 200 ")
		require.NoError(t, conn.Close())
	}
}
