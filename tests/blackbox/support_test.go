package blackbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// equipped is an app instance with one of everything that the application support API knows: a traffic rule t1, a DNS rule d1,
// a termination subscription and a registration. Its rules are not in force.
func equipped(t *testing.T, p *harness.Process) (a app, sub string) {
	t.Helper()
	a, m := newApp(p.Client(t)), mepmOf(t, p)
	m.done(m.configure(a.id, configuration("x", 1, 1)))
	a.Post(a.registrations(), registration(a.id)).Is(201)
	return a, a.mind("http://10.0.0.1/end")
}

func registration(id string) object {
	return object{"appName": "x", "appInstanceId": id, "endpoint": object{"uris": []any{"http://10.0.0.1/"}}}
}

// supportPaths are the resources of the application support API with the methods they have.
func supportPaths(a app, sub string) map[string][]string {
	base := a.prefix + supportRoot
	return map[string][]string{
		base + "/timing/current_time": {"GET", "HEAD"},
		base + "/timing/timing_caps":  {"GET", "HEAD"},
		a.registrations():             {"POST"},
		a.registration():              {"GET", "HEAD", "PUT", "DELETE"},
		a.ready():                     {"POST"},
		a.confirmation():              {"POST"},
		a.endings():                   {"GET", "HEAD", "POST"},
		a.prefix + sub:                {"GET", "HEAD", "DELETE"},
		a.trafficRules():              {"GET", "HEAD"},
		a.trafficRule("t1"):           {"GET", "HEAD", "PUT"},
		a.dnsRules():                  {"GET", "HEAD"},
		a.dnsRule("d1"):               {"GET", "HEAD", "PUT"},
	}
}

// v1 is the same path in the edition that calls the API v1.
func v1(path string) string { return strings.Replace(path, supportRoot, "/mec_app_support/v1", 1) }

func TestApplicationSupportIsTheSameAtEveryRoot(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a, sub := equipped(t, p)
	for _, prefix := range []string{"", "/mep"} {
		a := a.under(prefix)
		for path, methods := range supportPaths(a, sub) {
			if !slices.Contains(methods, "GET") || strings.Contains(path, "/timing/") {
				continue
			}
			two, one := a.Get(path).Is(200), a.Get(v1(path)).Is(200)
			require.Equal(t, two.Header.Get("ETag"), one.Header.Get("ETag"), path)
			require.JSONEq(t, string(two.Body), strings.ReplaceAll(string(one.Body), "/mec_app_support/v1/", "/mec_app_support/v2/"), path)
		}
		a.Get(a.prefix + supportRoot + "/timing/current_time").Is(200)
		a.Get(v1(a.prefix + supportRoot + "/timing/timing_caps")).Is(200)
	}
	t.Run("hrefs start with the root that was asked for", func(t *testing.T) {
		for _, prefix := range []string{"", "/mep"} {
			a := newApp(p.Client(t)).under(prefix)
			for _, root := range []func(string) string{func(s string) string { return s }, v1} {
				want := p.URL("mp1") + root(a.endings())
				posted := a.Post(root(a.endings()), a.ending("http://10.0.0.1/")).Is(201)
				require.True(t, strings.HasPrefix(posted.Header.Get("Location"), want+"/"), posted.Header)
				require.Equal(t, posted.Header.Get("Location"), self(posted.Object()))
				require.Equal(t, want, self(a.Get(root(a.endings())).Is(200).Object()))
				registered := a.Post(root(a.registrations()), registration(a.id)).Is(201)
				require.Equal(t, p.URL("mp1")+root(a.registration()), registered.Header.Get("Location"))
				a.Delete(root(a.registration())).Is(204)
			}
		}
	})
	t.Run("and at no other", func(t *testing.T) {
		c := p.Client(t)
		for _, path := range []string{
			"/mec_app_support", supportRoot, supportRoot + "/", "/mec_app_support/v3/timing/current_time", "/mec_app_support/timing/current_time",
			supportRoot + "/timing", supportRoot + "/Timing/current_time", supportRoot + "/timing/current_time/", supportRoot + "/applications/" + a.id,
			a.support() + "/nothing", a.trafficRule("t1") + "/x", a.ready() + "/x", supportRoot + "/registrations/",
		} {
			c.Get(path).Problem(404)
		}
	})
}

func TestMethodsThatApplicationSupportDoesNotHaveAre405(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a, sub := equipped(t, p)
	for path, has := range supportPaths(a, sub) {
		for i, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} {
			if slices.Contains(has, method) {
				continue
			}
			path := []string{path, v1(path), "/mep" + path, "/mep" + v1(path)}[i%4]
			answer := a.Do(method, path, nil).Is(405)
			if method != "HEAD" {
				answer.Problem(405)
			}
			allow := strings.Split(strings.ReplaceAll(answer.Header.Get("Allow"), " ", ""), ",")
			require.ElementsMatch(t, has, allow, "%s %s", method, path)
		}
	}
	a.Get(a.registration()).Is(200)
	a.Get(sub).Is(200)
}

func TestHeadIsGetWithoutTheBody(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a, sub := equipped(t, p)
	for path, methods := range supportPaths(a, sub) {
		if !slices.Contains(methods, "GET") {
			continue
		}
		get, head := a.Get(path).Is(200), a.Head(path).Is(200)
		require.Empty(t, head.Body)
		for _, name := range []string{"Content-Type", "ETag", "Cache-Control", "X-Content-Type-Options"} {
			require.Equal(t, get.Header.Get(name), head.Header.Get(name), "%s of %s", name, path)
		}
	}
}

func TestWhatApplicationSupportDoesNotKnowIs404(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a, sub := equipped(t, p)
	for _, id := range []string{"app", a.id + "0", "%20", "..%2F" + a.id, "%00", "%C3%BC", "*", strings.Repeat("a", 4000)} {
		for path, methods := range supportPaths(a, sub) {
			if strings.Contains(path, a.id) {
				for _, method := range methods {
					a.Do(method, strings.Replace(path, a.id, id, 1), nil).Is(404)
				}
			}
		}
	}
	other := newApp(a.Client) // which any UUID is in development mode, with nothing
	for _, id := range []string{uuid.NewString(), "T1", "t1%20", "%20", "t1%2F", "%2E%2E", "%00", "%FF", strings.Repeat("a", 4000)} {
		for path, method := range map[string]string{a.trafficRules(): "PUT", a.dnsRules(): "PUT", a.endings(): "DELETE"} {
			a.Get(path + "/" + id).Problem(404)
			a.Do(method, path+"/"+id, nil).Problem(404)
		}
	}
	for _, path := range []string{other.trafficRule("t1"), other.dnsRule("d1"), other.registration(), strings.Replace(sub, a.id, other.id, 1)} {
		other.Get(path).Problem(404)
	}
	for _, x := range []struct{ method, path string }{
		{"PUT", a.trafficRule("d1")}, {"PUT", a.dnsRule("t1")}, {"PUT", other.registration()}, {"PUT", other.trafficRule("t1")},
	} {
		problem := a.Do(x.method, x.path, "no JSON").Problem(404)
		require.NotEmpty(t, problem.Detail, "what there is to change comes before what it would be changed to")
	}
	require.Equal(t, "[]", strings.TrimSpace(string(other.Get(other.trafficRules()).Is(200).Body)), "a list without elements is one")
	require.Equal(t, "[]", strings.TrimSpace(string(other.Get(other.dnsRules()).Is(200).Body)))
}

func TestApplicationSupportTakesNoQuery(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a, sub := equipped(t, p)
	bodies := map[string]object{
		a.ready(): {"indication": "READY"}, a.confirmation(): {"operationAction": "STOPPING"}, a.endings(): a.ending("http://10.0.0.1/"),
		a.registrations(): registration(a.id), a.registration(): registration(a.id), a.trafficRule("t1"): but(traffic("t1"), "state", "ACTIVE"),
		a.dnsRule("d1"): {"state": "INACTIVE"},
	}
	for path, methods := range supportPaths(a, sub) {
		for _, method := range methods {
			if method == "HEAD" {
				continue
			}
			var body any
			if o := bodies[path]; o != nil && method != "GET" && method != "DELETE" {
				body = o
			}
			for _, query := range []string{"?x=1", "?app_instance_id", "?fields=state"} {
				a.Do(method, path+query, body).Problem(400)
			}
		}
	}
	require.Equal(t, map[string]string{"t1": "INACTIVE", "d1": "INACTIVE"}, a.states(), "nothing was done")
}

func TestConditionalRequestsOfApplicationSupport(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	const whatever, none = "*", `"no.1"`
	kinds := map[string]func(a app, sub string) string{
		"traffic rule": func(a app, _ string) string { return a.trafficRule("t1") },
		"DNS rule":     func(a app, _ string) string { return a.dnsRule("d1") },
		"subscription": func(_ app, sub string) string { return sub },
		"registration": func(a app, _ string) string { return a.registration() },
	}
	changes := map[string]object{
		"traffic rule": but(traffic("t1"), "priority", 7, "state", "INACTIVE"), "DNS rule": {"state": "INACTIVE", "ttl": 5},
	}
	for kind, path := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a, sub := equipped(t, p)
			a = a.with(p.Client(t))
			path := path(a, sub)
			tag := a.Get(path).Is(200).ETag()
			require.Regexp(t, `^"[^"]+"$`, tag)
			for _, known := range []string{tag, "W/" + tag, whatever, none + ", " + tag} {
				for _, method := range []string{"GET", "HEAD"} {
					answer := a.Do(method, path, nil, harness.Header("If-None-Match", known)).Is(304)
					require.Empty(t, answer.Body)
					require.Equal(t, tag, answer.ETag())
				}
			}
			require.NotEmpty(t, a.Get(path, harness.Header("If-None-Match", none)).Is(200).Body)

			change := changes[kind]
			if kind == "registration" {
				change = but(registration(a.id), "appName", "y")
			}
			stale := []string{none, "W/" + tag, strings.Trim(tag, `"`), "", none + `,"no.2"`}
			if change != nil {
				for _, match := range stale {
					a.Put(path, change, harness.Headers("If-Match", match)).Problem(412)
				}
				require.Equal(t, tag, a.Get(path).ETag(), "what was refused changed nothing")
				next := a.Put(path, change, harness.Header("If-Match", none+", "+tag)).ETag()
				require.NotEqual(t, tag, next)
				require.Equal(t, next, a.Get(path).ETag())
				a.Put(path, change, harness.Header("If-Match", tag)).Problem(412)
				require.Equal(t, next, a.Put(path, change, harness.Header("If-Match", whatever)).ETag(), "the same again changes nothing")
				tag = next
			}
			if kind == "subscription" || kind == "registration" {
				for _, match := range stale {
					a.Delete(path, harness.Headers("If-Match", match)).Problem(412)
				}
				a.Delete(path, harness.Header("If-Match", tag)).Is(204)
				a.Get(path).Problem(404)
				a.Delete(path, harness.Header("If-Match", whatever)).Problem(404)
			}
		})
	}
	t.Run("of two changes that start from the same state one is refused", func(t *testing.T) {
		t.Parallel()
		a, _ := equipped(t, p)
		tag := a.Get(a.dnsRule("d1")).ETag()
		outcome := make(chan int, 8)
		for i := range cap(outcome) {
			go func() {
				answer, err := a.Try("PUT", a.dnsRule("d1"), object{"state": "ACTIVE", "ttl": 100 + i}, harness.Header("If-Match", tag))
				if err != nil {
					outcome <- 0
					return
				}
				outcome <- answer.Status
			}()
		}
		count := map[int]int{}
		for range cap(outcome) {
			count[<-outcome]++
		}
		require.Equal(t, map[int]int{200: 1, 412: cap(outcome) - 1}, count)
	})
}

func TestBodiesOfApplicationSupportThatAreNone(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a, _ := equipped(t, p)
	for name, body := range map[string]string{
		"nothing": "", "null": "null", "an array": "[]", "text": "READY", "not to its end": `{"indication":"READY"`,
		"two": `{}{}`, "a member twice": `{"indication":"READY","indication":"READY","state":"ACTIVE","state":"ACTIVE","operationAction":"STOPPING","operationAction":"STOPPING","appName":"a","appName":"b","subscriptionType":"x","subscriptionType":"y"}`,
		"no UTF-8": "{\"indication\":\"READY\",\"x\":\"\xff\"}", "deep": strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			for path, method := range map[string]string{
				a.ready(): "POST", a.confirmation(): "POST", a.endings(): "POST", a.registrations(): "POST", a.registration(): "PUT",
				a.trafficRule("t1"): "PUT", a.dnsRule("d1"): "PUT",
			} {
				problem := a.Do(method, path, body).Problem(400)
				require.Less(t, len(problem.Detail), 2000)
			}
		})
	}
	for path, method := range map[string]string{a.ready(): "POST", a.trafficRule("t1"): "PUT", a.registration(): "PUT", a.endings(): "POST"} {
		a.Do(method, path, "{}", harness.Header("Content-Type", "text/plain")).Problem(415)
		a.Do(method, path, strings.Repeat(" ", 1<<20)+"{}").Problem(413)
	}
	a.Post(a.ready(), `{"indication":"READY"}`, harness.Header("Content-Type", "")).Is(204)
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a, m := newApp(p.Client(t)), mepmOf(t, p)
	early := a.Post(a.ready(), object{"indication": "READY"})
	require.Contains(t, early.Problem(409).Detail, a.id)
	require.NotEmpty(t, early.Header.Get("Retry-After"), "the app is to try again (MEC 011 5.2.2)")
	m.done(m.configure(a.id, configuration("x", 1, 1)))
	for name, body := range map[string]object{
		"nothing": {}, "another": {"indication": "STEADY"}, "small letters": {"indication": "ready"}, "a number": {"indication": 1},
		"null": {"indication": nil}, "an array": {"indication": []any{"READY"}},
	} {
		require.Equal(t, []string{"indication"}, a.Post(a.ready(), body).Problem(400).Names(), name)
	}
	require.Equal(t, "CONFIGURED", m.state(a.id))
	require.Equal(t, map[string]string{"t1": "INACTIVE", "d1": "INACTIVE"}, a.states())
	for range 2 {
		a.isReady()
		require.Equal(t, "STARTED", m.state(a.id))
		require.Equal(t, map[string]string{"t1": "ACTIVE", "d1": "ACTIVE"}, a.states())
	}
	require.NotEmpty(t, m.Get(instance(a.id) + "/status").Object()["ready"])
	a.Post(a.ready(), object{"indication": "READY", "more": []any{1}}).Is(204)
	newApp(p.Client(t)).Post(a.ready(), object{"indication": "READY"}, harness.Header("X-AppinstanceID", uuid.NewString())).Is(204)
}

// S-8: nobody reaches the resources of another app, confirms for it, or learns whether it exists.
func TestAnAppIsSupportedByItselfOnly(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	m := mepmOf(t, p)
	mine, _ := appOf(t, p)
	victim, _ := appOf(t, p)
	m.done(m.configure(victim.id, configuration("victim", 1, 1)))
	m.done(m.configure(mine.id, configuration("mine", 1, 1)))
	sub := victim.mind("http://192.0.2.1/end")
	victim.Post(victim.registrations(), registration(victim.id)).Is(201)
	ghost := app{Client: mine.Client, id: uuid.NewString()}
	bodies := map[string]any{
		"PUT " + victim.trafficRule("t1"): but(traffic("t1"), "state", "INACTIVE"), "POST " + victim.ready(): object{"indication": "READY"},
		"POST " + victim.confirmation(): object{"operationAction": "TERMINATING"}, "DELETE " + sub: nil,
	}
	for path, methods := range supportPaths(victim, sub) {
		if !strings.Contains(path, victim.id) {
			continue
		}
		for _, method := range methods {
			t.Run(method+" "+strings.ReplaceAll(strings.ReplaceAll(path, sub, "subscription"), victim.id, "B"), func(t *testing.T) {
				var texts []string
				for _, at := range []string{path, strings.Replace(path, victim.id, ghost.id, 1), "/mep" + path, v1(path)} {
					answer := mine.Do(method, at, bodies[method+" "+path]).Is(403)
					text := string(answer.Body)
					if method != http.MethodHead {
						text = fmt.Sprint(without(answer.Object(), "instance"))
						require.NotContains(t, text, victim.id)
					}
					texts = append(texts, text)
				}
				require.Equal(t, texts[0], texts[1], "an app that exists and one that does not look alike")
				p.Client(t).Do(method, path, nil).Is(401)
				p.Client(t).With(tokenOfManager(t, p)).Do(method, path, nil).Is(403)
			})
		}
	}
	require.Contains(t, mine.Post(mine.registrations(), registration(victim.id)).Problem(403).Detail, "appInstanceId")
	mine.Post(mine.registrations(), without(registration(""), "appInstanceId")).Is(201)
	require.Equal(t, mine.id, mine.Get(mine.registration()).Is(200).Object()["appInstanceId"])
	require.Equal(t, "CONFIGURED", m.state(victim.id))
	victim.Get(sub).Is(200)
	victim.Get(victim.registration()).Is(200)
	mine.Get(supportRoot + "/timing/current_time").Is(200)
	p.Client(t).Get(supportRoot + "/timing/current_time").Problem(401)
}

// tokenOfManager is a token with all that a manager may have.
func tokenOfManager(t *testing.T, p *harness.Process) string {
	t.Helper()
	return p.Bootstrap(t).Keys.Fetch(p.Auth(t)).AccessToken
}
