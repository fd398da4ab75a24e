package blackbox

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/openapi"
	"github.com/openmep/mep/tests/harness"
)

// defaulted is what a registration reads like when it is answered: with its id and links, and with the defaults.
func defaulted(info object, id string, links object) object {
	want := but(info, "serInstanceId", id, "isLocal", true, "_links", links)
	for member, value := range map[string]any{"scopeOfLocality": "MEC_HOST", "consumedLocalOnly": true} {
		if _, given := want[member]; !given {
			want[member] = value
		}
	}
	return want
}

func TestAServiceLivesFromRegistrationToRemoval(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	for _, prefix := range []string{"", "/mep"} {
		for name, info := range map[string]object{"minimal": own("rnis"), "full": full("rnis")} {
			t.Run("below "+strconv.Quote(prefix)+", "+name, func(t *testing.T) {
				t.Parallel()
				a := newApp(p.Client(t)).under(prefix)

				posted := a.Post(a.services(), info).Is(201)
				svc := a.read(posted)
				_, err := uuid.Parse(svc.id)
				require.NoError(t, err, "serInstanceId should be a UUID")
				href := p.URL("mp1") + a.service(svc.id)
				require.Equal(t, href, posted.Header.Get("Location"))
				links := object{"self": object{"href": href}}
				if _, monitored := info["livenessInterval"]; monitored {
					links["liveness"] = object{"href": href + "/liveness"}
				}
				want := defaulted(info, svc.id, links)
				same(t, want, svc.info)

				for _, path := range []string{a.service(svc.id), a.root() + "/services/" + svc.id, href} {
					got := a.Get(path).Is(200)
					same(t, want, got.Object(), path)
					require.Equal(t, svc.etag, got.ETag(), path)
					head := a.Head(path).Is(200)
					require.Equal(t, svc.etag, head.ETag())
					require.Equal(t, strconv.Itoa(len(got.Body)), head.Header.Get("Content-Length"))
					require.Equal(t, "application/json", head.Header.Get("Content-Type"))
				}
				for _, list := range []string{a.services(), a.root() + "/services"} {
					same(t, []object{want}, a.Get(list+"?ser_instance_id="+svc.id).Is(200).Array(), list)
				}

				changed := but(info, "version", "9.9", "serName", "other")
				put := a.replace(svc.id, changed)
				same(t, defaulted(changed, svc.id, links), put.info)
				require.NotEqual(t, svc.etag, put.etag, "a change changes the entity-tag")
				require.Equal(t, put.etag, a.Get(a.service(svc.id)).ETag())
				same(t, put.info, a.Get(a.service(svc.id)).Object())

				removed := a.Delete(a.service(svc.id)).Is(204)
				require.Empty(t, removed.Body)
				for _, path := range []string{a.service(svc.id), a.root() + "/services/" + svc.id} {
					a.Get(path).Problem(404)
					a.Head(path).Is(404)
				}
				a.Delete(a.service(svc.id)).Problem(404)
				a.Put(a.service(svc.id), changed).Problem(404)
				require.Empty(t, a.Get(a.services()).Is(200).Array())
			})
		}
	}
}

func TestTransportsOfThePlatform(t *testing.T) {
	t.Parallel()
	t.Run("one REST transport exists by default", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t)
		c := p.Client(t)
		for _, prefix := range []string{"", "/mep"} {
			list := c.Get(prefix + root + "/transports").Is(200).Array()
			require.Len(t, list, 1)
			require.Equal(t, "rest-http", list[0]["id"])
			require.Equal(t, "REST_HTTP", list[0]["type"])
			require.Equal(t, "HTTP", list[0]["protocol"])
			head := c.Head(prefix + root + "/transports").Is(200)
			require.Empty(t, head.Body)
		}
		require.Contains(t, c.Get(root+"/transports?x=1").Problem(400).Detail, `"x"`)
	})
	t.Run("configured ones take its place and can be named in registrations", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t, harness.Config(`
transports:
  - id: transportId
    name: bus
    type: MB_PUBSUB
    protocol: MQTT
    version: "5"
    endpoint: {addresses: [{host: bus.example, port: 1883}]}
    security: {}
  - id: t2
    name: REST
    type: REST_HTTP
    protocol: HTTP
    version: "1.1"
    endpoint: {uris: ["http://mep.example"]}
    security: {oAuth2Info: {grantTypes: [OAUTH2_CLIENT_CREDENTIALS], tokenEndpoint: "http://mep.example/token"}}
`))
		a := newApp(p.Client(t))
		list := a.Get(root + "/transports").Is(200).Array()
		require.Equal(t, []string{"t2", "transportId"}, names(list, "id"))
		for _, transport := range list {
			svc := a.register(but(minimal("x"), "transportId", transport["id"]))
			same(t, transport, svc.info["transportInfo"])
			require.NotContains(t, svc.info, "transportId")
		}
		require.Equal(t, []string{"transportId"}, a.Post(a.services(), minimal("x")).Problem(400).Names())
	})
}

func TestMethodsThatAResourceDoesNotHaveAre405(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	c := p.Client(t)
	a := newApp(c)
	svc := a.register(but(minimal("x"), "livenessInterval", 60))
	sub := a.subscribe("http://10.1.2.3/cb", nil)
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"}
	for _, prefix := range []string{"", "/mep"} {
		a := a.under(prefix)
		for path, has := range map[string][]string{
			a.root() + "/services":           {"GET", "HEAD"},
			a.root() + "/services/" + svc.id: {"GET", "HEAD"},
			a.root() + "/transports":         {"GET", "HEAD"},
			a.services():                     {"GET", "HEAD", "POST"},
			a.service(svc.id):                {"GET", "HEAD", "PUT", "DELETE"},
			a.liveness(svc.id):               {"GET", "HEAD", "PATCH", "PUT"},
			a.subscriptions():                {"GET", "HEAD", "POST"},
			a.subscription(sub):              {"GET", "HEAD", "DELETE"},
		} {
			for _, method := range methods {
				if slices.Contains(has, method) {
					continue
				}
				answer := c.Do(method, path, nil)
				answer.Problem(405)
				allow := strings.Split(strings.ReplaceAll(answer.Header.Get("Allow"), " ", ""), ",")
				require.ElementsMatch(t, has, allow, "%s %s", method, path)
			}
		}
	}
	// Nothing of it had an effect.
	require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
	a.Get(a.subscription(sub)).Is(200)
}

func TestWhatDoesNotExistIs404(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	svc := a.register(but(minimal("x"), "livenessInterval", 60))

	t.Run("unknown paths", func(t *testing.T) {
		c := p.Client(t)
		for _, path := range []string{
			"/", "/mep", "/mec_service_mgmt", root, root + "/", root + "/nothing", "/mec_service_mgmt/v2/services",
			"/mec_service_mgmt/v0/services", "/MEC_SERVICE_MGMT/v1/services", root + "/Services", root + "/applications",
			root + "/applications/" + a.id, root + "/applications/" + a.id + "/nothing", a.service(svc.id) + "/nothing",
			a.liveness(svc.id) + "/x", "/mep/mep" + services, "/nothing" + services,
		} {
			for _, method := range []string{"GET", "POST", "DELETE"} {
				c.Do(method, path, nil).Problem(404)
			}
		}
	})
	t.Run("app instances that are no UUID", func(t *testing.T) {
		c := p.Client(t)
		for _, id := range []string{
			"app", "1", "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1", "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1ff",
			"5abe47822c704e479a4e0ee3a1a0fd1f", "{5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f}", "gabe4782-2c70-4e47-9a4e-0ee3a1a0fd1f",
			"urn:uuid:5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f", "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f%20", "5abe4782_2c70_4e47_9a4e_0ee3a1a0fd1f",
			"%C3%BC", "*",
		} {
			b := app{Client: c, id: id}
			c.Get(b.services()).Problem(404)
			c.Head(b.services()).Is(404)
			c.Post(b.services(), minimal("x")).Problem(404)
			c.Get(b.service(svc.id)).Problem(404)
			c.Put(b.service(svc.id), own("x")).Problem(404)
			c.Delete(b.service(svc.id)).Problem(404)
			c.Get(b.liveness(svc.id)).Problem(404)
			b.beat(svc.id).Problem(404)
			c.Get(b.subscriptions()).Problem(404)
			c.Post(b.subscriptions(), subscription("http://10.0.0.1/")).Problem(404)
			c.Get(b.subscription(svc.id)).Problem(404)
			c.Delete(b.subscription(svc.id)).Problem(404)
		}
	})
	t.Run("ids of services and subscriptions", func(t *testing.T) {
		a := a.with(p.Client(t))
		c := a.Client
		for _, id := range []string{uuid.NewString(), "x", "%20", "a%2Fb", "..%2F" + svc.id, strings.ToUpper(svc.id) + "0", "%00", strings.Repeat("a", 4000)} {
			c.Get(services + "/" + id).Problem(404)
			c.Head(services + "/" + id).Is(404)
			c.Get(a.service(id)).Problem(404)
			c.Put(a.service(id), own("x")).Problem(404)
			c.Put(a.service(id), "no JSON").Problem(404)
			c.Delete(a.service(id)).Problem(404)
			c.Get(a.liveness(id)).Problem(404)
			a.beat(id).Problem(404)
			c.Get(a.subscription(id)).Problem(404)
			c.Delete(a.subscription(id)).Problem(404)
		}
	})
}

func TestHrefsStartWithWhatTheClientAskedFor(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		args []string
		host string // "" is that of the listener
		want string // "" is the URL of the listener
	}{
		"the listener's address":           {},
		"the Host header":                  {host: "mep.example:8088", want: "http://mep.example:8088"},
		"the public URL over Host":         {args: []string{"--public-url", "https://edge.example"}, host: "mep.example", want: "https://edge.example"},
		"a public URL with path and slash": {args: []string{"--public-url", "https://edge.example:444/site/1/"}, want: "https://edge.example:444/site/1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Args(x.args...))
			want := x.want
			if want == "" {
				want = p.URL("mp1")
			}
			cb := harness.NewSubscriber(t)
			host := func(r *http.Request) {
				if x.host != "" {
					r.Host = x.host
				}
			}
			a := newApp(p.Client(t))
			for _, prefix := range []string{"", "/mep"} {
				a := a.under(prefix)
				sub := a.Post(a.subscriptions(), subscription(cb.URL("/"+strings.Trim(prefix, "/"))), host).Is(201)
				require.Equal(t, want+a.subscriptions()+"/", sub.Header.Get("Location")[:len(want+a.subscriptions()+"/")])
				require.Equal(t, sub.Header.Get("Location"), self(sub.Object()))

				svc := a.Post(a.services(), but(minimal("x"), "livenessInterval", 0), host).Is(201)
				id := svc.Object()["serInstanceId"].(string)
				href := want + a.service(id)
				require.Equal(t, href, svc.Header.Get("Location"))
				for _, o := range []object{
					svc.Object(),
					a.Get(a.service(id), host).Object(), a.Get(a.root()+"/services/"+id, host).Object(),
					a.Get(a.services(), host).Array()[0], a.Get(a.root()+"/services?ser_instance_id="+id, host).Array()[0],
					a.Put(a.service(id), but(own("y"), "livenessInterval", 0), host).Object(),
				} {
					require.Equal(t, href, self(o))
					same(t, object{"self": object{"href": href}, "liveness": object{"href": href + "/liveness"}}, o["_links"])
				}
				var list struct {
					Links struct {
						Self          struct{ Href string }
						Subscriptions []struct{ Href string }
					} `json:"_links"`
				}
				a.Get(a.subscriptions(), host).Into(&list)
				require.Equal(t, want+a.subscriptions(), list.Links.Self.Href)
				require.True(t, strings.HasPrefix(list.Links.Subscriptions[0].Href, want+a.subscriptions()+"/"))
				a.Delete(a.service(id)).Is(204)
			}
			// There is no request to take the address from when a subscriber is told.
			base := p.URL("mp1")
			if len(x.args) > 0 {
				base = want
			}
			told := cb.AwaitChange(t, "/", "ADDED x ACTIVE")
			require.Equal(t, base+a.service(told.Change.SerInstanceID), told.Change.Link.Href)
			require.True(t, strings.HasPrefix(told.Subscription, base+a.subscriptions()+"/"), told.Subscription)
		})
	}
}

func TestAnswersWithoutAHostAreAbsoluteToo(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	svc := a.register(minimal("x"))
	// HTTP/1.0 does not need a Host.
	answer, ok := p.Exchange(t, "mp1", "GET", []byte("GET "+a.service(svc.id)+" HTTP/1.0\r\n\r\n"))
	require.True(t, ok)
	require.Equal(t, a.service(svc.id), harness.Path(t, self(answer.Is(200).Object())))
}

// The platform may keep a list for the next request, but not for a request that has another answer.
func TestAListIsRightHoweverOftenItIsRead(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	var want []string
	for i := range 4 {
		for _, host := range []string{"a.example", "b.example", "a.example", "a.example", "a.example", "b.example"} {
			for _, prefix := range []string{"", "/mep", ""} {
				as := func(r *http.Request) { r.Host = host }
				answer := a.Get(prefix+services, as).Is(200)
				require.Equal(t, strconv.Itoa(len(answer.Body)), answer.Header.Get("Content-Length"))
				list := answer.Array()
				require.Len(t, list, len(want))
				require.Subset(t, want, names(list, "serName"))
				for _, info := range list {
					require.True(t, strings.HasPrefix(self(info), "http://"+host+prefix+root+"/applications/"), self(info))
				}
				head := a.Head(prefix+services, as).Is(200)
				require.Empty(t, head.Body)
				require.Equal(t, answer.Header.Get("Content-Length"), head.Header.Get("Content-Length"))
			}
		}
		a.register(own(fmt.Sprint("s", i)))
		want = append(want, fmt.Sprint("s", i))
	}
}

func TestConditionalRequests(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	for _, kind := range []string{"own service", "service", "subscription", "liveness"} {
		t.Run("If-None-Match of a "+kind, func(t *testing.T) {
			t.Parallel()
			a := newApp(p.Client(t))
			svc := a.register(but(minimal("x"), "livenessInterval", 60))
			path := map[string]string{
				"own service": a.service(svc.id), "service": services + "/" + svc.id, "liveness": a.liveness(svc.id),
				"subscription": a.subscription(a.subscribe("http://10.0.0.1/", nil)),
			}[kind]
			tag := a.Get(path).ETag()
			require.Regexp(t, `^"[^"]+"$`, tag)
			for _, known := range []string{tag, "W/" + tag, "*", `"no.1", ` + tag, tag + `,"no.2"`} {
				for _, method := range []string{"GET", "HEAD"} {
					answer := a.Do(method, path, nil, harness.Header("If-None-Match", known)).Is(304)
					require.Empty(t, answer.Body)
					require.Equal(t, tag, answer.ETag())
				}
			}
			a.Get(path, harness.Headers("If-None-Match", `"no.1"`, tag)).Is(304)
			for _, other := range []string{`"no.1"`, strings.Trim(tag, `"`), `"no.1","no.2"`} {
				require.NotEmpty(t, a.Get(path, harness.Header("If-None-Match", other)).Is(200).Body)
			}
		})
	}
	match := map[string]struct {
		values func(tag string) []string
		holds  bool
	}{
		"the current one":         {func(tag string) []string { return []string{tag} }, true},
		"any":                     {func(string) []string { return []string{"*"} }, true},
		"a list with it":          {func(tag string) []string { return []string{`"no.1", ` + tag + `, "no.2"`} }, true},
		"a second line with it":   {func(tag string) []string { return []string{`"no.1"`, tag} }, true},
		"another":                 {func(string) []string { return []string{`"no.1"`} }, false},
		"a list of others":        {func(string) []string { return []string{`"no.1","no.2"`} }, false},
		"the current one as weak": {func(tag string) []string { return []string{"W/" + tag} }, false},
		"no entity-tag":           {func(string) []string { return []string{"no.1"} }, false},
		"without its quotes":      {func(tag string) []string { return []string{strings.Trim(tag, `"`)} }, false},
		"nothing":                 {func(string) []string { return []string{""} }, false},
	}
	for name, x := range match {
		t.Run("If-Match with "+name, func(t *testing.T) {
			t.Parallel()
			a := newApp(p.Client(t))
			svc := a.register(own("x"))
			tag := svc.etag
			sub := a.subscription(a.subscribe("http://10.0.0.1/", nil))
			ifMatch := func(tag string) harness.RequestOption { return harness.Headers("If-Match", x.values(tag)...) }
			put := a.Put(a.service(svc.id), own("y"), ifMatch(tag))
			if x.holds {
				tag = put.Is(200).ETag()
			} else {
				put.Problem(412)
				require.Equal(t, "x", a.Get(a.service(svc.id)).Object()["serName"])
			}
			for path, tag := range map[string]string{a.service(svc.id): tag, sub: a.Get(sub).ETag()} {
				removed := a.Delete(path, ifMatch(tag))
				if x.holds {
					removed.Is(204)
					a.Get(path).Is(404)
				} else {
					removed.Problem(412)
					a.Get(path).Is(200)
				}
			}
		})
	}
	t.Run("of two changes that start from the same state one is refused", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		svc := a.register(own("x"))
		outcome := make(chan int, 8)
		for i := range cap(outcome) {
			go func() {
				answer, err := a.Try("PUT", a.service(svc.id), but(own("x"), "version", strconv.Itoa(i+2)), harness.Header("If-Match", svc.etag))
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
	t.Run("a change that changes nothing keeps the entity-tag", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		for _, info := range []object{own("x"), full("x")} {
			svc := a.register(info)
			require.Equal(t, svc.etag, a.replace(svc.id, info).etag)
			require.Equal(t, svc.etag, a.replace(svc.id, svc.info).etag, "a client may send back what it read")
		}
	})
}

func TestPutReplaces(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	svc := a.register(full("x"))
	put := a.replace(svc.id, own("x"))
	same(t, defaulted(own("x"), svc.id, object{"self": object{"href": p.URL("mp1") + a.service(svc.id)}}), put.info)
	same(t, put.info, a.Get(services+"/"+svc.id).Object())
	a.Get(a.liveness(svc.id)).Problem(404)
	require.Empty(t, a.Get(services+"?ser_category_id=cat-rni").Array(), "the old category finds it no longer")

	again := a.replace(svc.id, full("y"))
	same(t, full("y")["transportInfo"], again.info["transportInfo"])
	a.Get(a.liveness(svc.id)).Is(200)
	require.Equal(t, []string{"y"}, names(a.Get(services+"?ser_category_id=cat-rni").Array(), "serName"))
	require.Empty(t, a.Get(services+"?ser_name=x").Array(), "the old name finds it no longer")
}

func TestPutNeedsTransportInfo(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	svc := a.register(minimal("x"))
	// transportId is for POST only; transportInfo shall be present otherwise (MEC 011 8.1.2.2).
	require.Equal(t, []string{"transportInfo"}, a.Put(a.service(svc.id), without(minimal("x"), "transportId")).Problem(400).Names())
	require.Contains(t, a.Put(a.service(svc.id), minimal("y")).Problem(400).Names(), "transportInfo")
}

func TestServicesOfAnotherApp(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	owner, other := newApp(p.Client(t)), newApp(p.Client(t))
	svc := owner.register(but(own("x"), "livenessInterval", 60))

	other.Put(other.service(svc.id), own("stolen")).Problem(403)
	other.Put(other.service(svc.id), "no JSON").Problem(403)
	other.Delete(other.service(svc.id)).Problem(403)
	other.Delete(other.service(svc.id), harness.Header("If-Match", svc.etag)).Problem(403)
	other.beat(svc.id).Problem(403)
	other.Put(other.liveness(svc.id), object{"state": "ACTIVE"}).Problem(403)
	other.Get(other.service(svc.id)).Problem(404)
	other.Get(other.liveness(svc.id)).Problem(404)
	require.Empty(t, other.Get(other.services()).Is(200).Array())

	require.Equal(t, svc.etag, other.Get(services+"/"+svc.id).ETag(), "everyone may discover it, nobody else changed it")
	sub := owner.subscribe("http://10.0.0.1/", nil)
	other.Get(other.subscription(sub)).Problem(404)
	other.Delete(other.subscription(sub)).Problem(404)
	owner.Get(owner.subscription(sub)).Is(200)
}

func TestWhatRequestsMayCarry(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	c := p.Client(t)

	t.Run("serInstanceId in a registration is refused", func(t *testing.T) {
		a := newApp(c)
		require.Equal(t, []string{"serInstanceId"},
			a.Post(a.services(), but(minimal("x"), "serInstanceId", uuid.NewString())).Problem(400).Names())
		require.Empty(t, a.Get(a.services()).Array())
	})
	t.Run("serInstanceId in a registration is ignored below /mep", func(t *testing.T) {
		a := newApp(c).under("/mep")
		asked := uuid.NewString()
		svc := a.read(a.Post(a.services(), but(minimal("x"), "serInstanceId", asked), harness.Tolerated()).Is(201))
		require.NotEqual(t, asked, svc.id)
	})
	t.Run("serInstanceId in a replacement may be absent or equal", func(t *testing.T) {
		a := newApp(c)
		svc := a.register(own("x"))
		a.replace(svc.id, but(own("y"), "serInstanceId", svc.id))
		require.Equal(t, []string{"serInstanceId"},
			a.Put(a.service(svc.id), but(own("z"), "serInstanceId", uuid.NewString())).Problem(400).Names())
		require.Equal(t, "y", a.Get(a.service(svc.id)).Object()["serName"])
	})
	t.Run("_links, isLocal and unknown members are ignored", func(t *testing.T) {
		a := newApp(c)
		noise := []any{
			"isLocal", false, "_links", object{"self": object{"href": "http://evil.example"}, "liveness": object{"href": "x"}},
			"unknown", object{"a": []any{1, 2}}, "transportInfo.unknown", 1, "transportInfo.endpoint.unknown", true,
		}
		svc := a.register(but(own("x"), noise...))
		want := defaulted(own("x"), svc.id, object{"self": object{"href": p.URL("mp1") + a.service(svc.id)}})
		same(t, want, svc.info)
		put := a.replace(svc.id, but(own("x"), noise...))
		same(t, want, put.info)
		require.Equal(t, svc.etag, put.etag)
	})
	t.Run("null counts as absent", func(t *testing.T) {
		a := newApp(c)
		svc := a.register(but(own("x"), "serInstanceId", null, "serCategory", null, "transportId", null, "scopeOfLocality", null,
			"consumedLocalOnly", null, "isLocal", null, "livenessInterval", null, "_links", null, "unknown", null,
			"transportInfo.description", null, "transportInfo.implSpecificInfo", null, "transportInfo.endpoint.fqdn", null,
			"transportInfo.endpoint.addresses", null, "transportInfo.endpoint.alternative", null, "transportInfo.security.oAuth2Info", null))
		same(t, defaulted(own("x"), svc.id, object{"self": object{"href": p.URL("mp1") + a.service(svc.id)}}), svc.info)
		for _, required := range []string{"serName", "version", "state", "serializer", "transportInfo", "transportInfo.endpoint", "transportInfo.security"} {
			require.Equal(t, []string{required}, a.Post(a.services(), but(own("x"), required, null)).Problem(400).Names())
		}
	})
	t.Run("a media type", func(t *testing.T) {
		a := newApp(c)
		for _, mt := range []string{"", "application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"} {
			svc := a.read(a.Post(a.services(), own("x"), harness.Header("Content-Type", mt)).Is(201))
			a.Put(a.service(svc.id), own("y"), harness.Header("Content-Type", mt)).Is(200)
			a.Post(a.subscriptions(), subscription("http://10.0.0.1/"), harness.Header("Content-Type", mt)).Is(201)
		}
		svc := a.register(but(own("x"), "livenessInterval", 60))
		for _, mt := range []string{"text/plain", "application/xml", "application/x-www-form-urlencoded", "application/merge-patch+json", "json", "application/json; charset", "*/*", "application/problem+json"} {
			a.Post(a.services(), own("x"), harness.Header("Content-Type", mt)).Problem(415)
			a.Put(a.service(svc.id), own("y"), harness.Header("Content-Type", mt)).Problem(415)
			a.Post(a.subscriptions(), subscription("http://10.0.0.1/"), harness.Header("Content-Type", mt)).Problem(415)
			if mt != "application/merge-patch+json" {
				a.beat(svc.id, harness.Header("Content-Type", mt)).Problem(415)
			}
		}
		require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
	})
	t.Run("Accept: application/problem+json", func(t *testing.T) {
		a := newApp(p.Client(t))
		accept := harness.Header("Accept", "application/problem+json")
		svc := a.read(a.Post(a.services(), but(own("x"), "livenessInterval", 60), accept).Is(201))
		a.Get(a.service(svc.id), accept).Is(200)
		a.Get(services, accept).Is(200)
		a.beat(svc.id, accept).Is(204)
		a.Put(a.service(svc.id), own("y"), accept).Is(200)
		a.Delete(a.service(svc.id), accept).Is(204)
	})
	t.Run("a request id that is acceptable comes back", func(t *testing.T) {
		require.Equal(t, "my-id.1", c.Get(services, harness.Header("X-Request-Id", "my-id.1")).Header.Get("X-Request-Id"))
		require.Equal(t, "my-id.1", c.Get(services+"/x", harness.Header("X-Request-Id", "my-id.1")).Problem(404).Instance)
		for _, bad := range []string{strings.Repeat("x", 65), "a b", `"x"`} {
			require.NotEqual(t, bad, c.Get(services+"/x", harness.Header("X-Request-Id", bad)).Header.Get("X-Request-Id"))
		}
	})
	t.Run("no query where there are no parameters", func(t *testing.T) {
		a := newApp(c)
		svc := a.register(but(own("x"), "livenessInterval", 60))
		sub := a.subscription(a.subscribe("http://10.0.0.1/", nil))
		for _, path := range []string{services + "/" + svc.id, a.service(svc.id), a.liveness(svc.id), a.subscriptions(), sub, root + "/transports"} {
			a.Get(path + "?ser_name=x").Problem(400)
			a.Get(path + "?instance_id=1").Problem(400)
		}
		a.Post(a.services()+"?x=1", own("x")).Problem(400)
		a.Put(a.service(svc.id)+"?x=1", own("y")).Problem(400)
		a.Patch(a.liveness(svc.id)+"?x=1", object{"state": "ACTIVE"}).Problem(400)
		a.Post(a.subscriptions()+"?x=1", subscription("http://10.0.0.1/")).Problem(400)
		a.Delete(a.service(svc.id) + "?x=1").Problem(400)
		a.Delete(sub + "?x=1").Problem(400)
		require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
		a.Get(sub).Is(200)
	})
}

func TestTransportOfARegistration(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	platform := p.Client(t).Get(root + "/transports").Array()[0]
	both := but(own("x"), "transportId", "t-1")
	for name, x := range map[string]struct {
		info object
		want any      // transportInfo of the answer
		bad  []string // or what is refused
		opts []harness.RequestOption
	}{
		"an id of the platform's is resolved": {info: minimal("x"), want: platform},
		"the app's own":                       {info: own("x"), want: transport()},
		"an unknown id":                       {info: but(minimal("x"), "transportId", "nothing"), bad: []string{"transportId"}},
		"both, with the same id":              {info: both, want: transport(), opts: []harness.RequestOption{harness.Tolerated()}},
		"both, with different ids":            {info: but(both, "transportId", "rest-http"), bad: []string{"transportId"}},
		"neither":                             {info: without(minimal("x"), "transportId"), bad: []string{"transportInfo"}},
		"an empty id":                         {info: but(minimal("x"), "transportId", ""), bad: []string{"transportInfo"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(p.Client(t))
			answer := a.Post(a.services(), x.info, x.opts...)
			if x.bad != nil {
				require.Equal(t, x.bad, answer.Problem(400).Names())
				return
			}
			info := answer.Is(201).Object()
			same(t, x.want, info["transportInfo"])
			require.NotContains(t, info, "transportId")
			same(t, x.want, a.Get(services + "/" + info["serInstanceId"].(string)).Object()["transportInfo"])
		})
	}
}

func TestEnumerations(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	for name, accepted := range map[string][]any{
		"the serializer is extensible":    {"serializer", "CBOR"},
		"the transport type is, too":      {"transportInfo.type", "X_CUSTOM"},
		"so is the protocol":              {"transportInfo.protocol", "QUIC"},
		"scope MEC_SYSTEM":                {"scopeOfLocality", "MEC_SYSTEM"},
		"scope MEC_HOST":                  {"scopeOfLocality", "MEC_HOST"},
		"scope NFVI_POP":                  {"scopeOfLocality", "NFVI_POP"},
		"scope ZONE":                      {"scopeOfLocality", "ZONE"},
		"scope ZONE_GROUP":                {"scopeOfLocality", "ZONE_GROUP"},
		"scope NFVI_NODE":                 {"scopeOfLocality", "NFVI_NODE"},
		"state INACTIVE":                  {"state", "INACTIVE"},
		"a grant that needs no end point": {"transportInfo.security.oAuth2Info", object{"grantTypes": []any{"OAUTH2_IMPLICIT_GRANT"}}},
	} {
		t.Run(name, func(t *testing.T) {
			a := a.with(p.Client(t))
			svc := a.register(but(own("x"), accepted...))
			same(t, defaulted(but(own("x"), accepted...), svc.id, object{"self": object{"href": p.URL("mp1") + a.service(svc.id)}}), svc.info)
		})
	}
	for name, refused := range map[string]struct {
		change []any
		names  []string
	}{
		"the state is closed":            {[]any{"state", "BUSY"}, []string{"state"}},
		"the state is case-sensitive":    {[]any{"state", "active"}, []string{"state"}},
		"only the platform suspends":     {[]any{"state", "SUSPENDED"}, []string{"state"}},
		"the scope is closed":            {[]any{"scopeOfLocality", "GALAXY"}, []string{"scopeOfLocality"}},
		"the grants are closed":          {[]any{"transportInfo.security.oAuth2Info", object{"grantTypes": []any{"MAGIC"}, "tokenEndpoint": "http://a"}}, []string{"transportInfo.security.oAuth2Info.grantTypes[0]"}},
		"five grants":                    {[]any{"transportInfo.security.oAuth2Info", object{"grantTypes": slices.Repeat([]any{"OAUTH2_IMPLICIT_GRANT"}, 5)}}, []string{"transportInfo.security.oAuth2Info.grantTypes"}},
		"a grant that needs an endpoint": {[]any{"transportInfo.security.oAuth2Info", object{"grantTypes": []any{"OAUTH2_CLIENT_CREDENTIALS"}}}, []string{"transportInfo.security.oAuth2Info.tokenEndpoint"}},
		"an empty serializer":            {[]any{"serializer", ""}, []string{"serializer"}},
		"two kinds of end point":         {[]any{"transportInfo.endpoint", object{"uris": []any{"http://a"}, "fqdn": []any{"a.example"}}}, []string{"transportInfo.endpoint"}},
		"no kind of end point":           {[]any{"transportInfo.endpoint", object{}}, []string{"transportInfo.endpoint"}},
		"an empty end point":             {[]any{"transportInfo.endpoint", object{"uris": []any{}}}, []string{"transportInfo.endpoint"}},
		"a port out of range":            {[]any{"transportInfo.endpoint", object{"addresses": []any{object{"host": "a", "port": 65536}}}}, []string{"transportInfo.endpoint.addresses[0].port"}},
		"a name that is too long":        {[]any{"serName", strings.Repeat("n", 256)}, []string{"serName"}},
		"a version that is too long":     {[]any{"version", strings.Repeat("1", 65)}, []string{"version"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := a.with(p.Client(t))
			svc := a.register(own("x"))
			for _, problem := range []harness.Problem{
				a.Post(a.services(), but(own("x"), refused.change...)).Problem(400),
				a.Put(a.service(svc.id), but(own("x"), refused.change...)).Problem(400),
			} {
				require.Equal(t, refused.names, problem.Names())
				require.Contains(t, problem.Detail, refused.names[0])
			}
			require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
		})
	}
	t.Run("the longest values that are allowed", func(t *testing.T) {
		a := a.with(p.Client(t))
		a.register(but(own(strings.Repeat("ü", 255)), "version", strings.Repeat("1", 64), "serializer", strings.Repeat("S", 64)))
	})
	t.Run("every form of end point", func(t *testing.T) {
		a := a.with(p.Client(t))
		for _, endpoint := range []object{
			{"uris": []any{"http://a/b", "/relative"}}, {"fqdn": []any{"a.example", "b.example."}},
			{"addresses": []any{object{"host": "::1", "port": 1}, object{"host": "h", "port": 65535}}},
			{"alternative": object{"any": []any{1, "x"}}}, {"alternative": "text"},
		} {
			svc := a.register(but(own("x"), "transportInfo.endpoint", endpoint))
			same(t, endpoint, svc.info["transportInfo"].(object)["endpoint"])
		}
	})
}

func TestEveryMissingMemberIsNamed(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	svc := a.register(but(own("x"), "livenessInterval", 60))
	whole := but(full("x"), "state", "ACTIVE")
	filter := object{"serCategories": []any{object{"href": "h", "id": "i", "name": "n", "version": "v"}}}
	for _, x := range []struct {
		method, path string
		body         object
		required     []string
	}{
		{"POST", a.services(), whole, serviceMembers},
		{"PUT", a.service(svc.id), whole, serviceMembers},
		{"POST", a.subscriptions(), but(subscription("http://10.0.0.1/"), "filteringCriteria", filter), []string{
			"subscriptionType", "callbackReference",
			"filteringCriteria.serCategories[0].href", "filteringCriteria.serCategories[0].id",
			"filteringCriteria.serCategories[0].name", "filteringCriteria.serCategories[0].version",
		}},
		{"PATCH", a.liveness(svc.id), object{"state": "ACTIVE"}, []string{"state"}},
	} {
		for _, member := range x.required {
			for how, body := range map[string]object{"absent": but(x.body, member, nil), "null": but(x.body, member, null), "empty": emptied(x.body, member)} {
				if body == nil {
					continue
				}
				t.Run(x.method+" "+member+" "+how, func(t *testing.T) {
					problem := p.Client(t).Do(x.method, x.path, body).Problem(400)
					require.Equal(t, []string{member}, problem.Names())
					require.Contains(t, problem.Detail, member)
					require.NotEmpty(t, problem.InvalidParams[0].Reason)
				})
			}
		}
		t.Run(x.method+" all at once", func(t *testing.T) {
			body := x.body
			var leaves []string
			for _, member := range x.required {
				// A whole that is absent is named, not what would be in it.
				if member != "transportInfo" && member != "transportInfo.endpoint" && member != "transportInfo.security" {
					body = but(body, member, nil)
					leaves = append(leaves, member)
				}
			}
			problem := p.Client(t).Do(x.method, x.path, body).Problem(400)
			require.ElementsMatch(t, leaves, problem.Names())
			for _, member := range leaves {
				require.Contains(t, problem.Detail, member)
			}
		})
	}
	require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
	require.Len(t, a.Get(a.services()).Array(), 1)
}

var serviceMembers = []string{
	"serName", "version", "state", "serializer", "transportInfo",
	"serCategory.href", "serCategory.id", "serCategory.name", "serCategory.version",
	"transportInfo.id", "transportInfo.name", "transportInfo.type", "transportInfo.protocol", "transportInfo.version",
	"transportInfo.endpoint", "transportInfo.security",
	"transportInfo.endpoint.addresses[0].host", "transportInfo.endpoint.addresses[0].port", "transportInfo.endpoint.addresses[1].host",
	"transportInfo.security.oAuth2Info.grantTypes", "transportInfo.security.oAuth2Info.tokenEndpoint",
}

// emptied is o with an empty string for a member that is a string, else nil.
func emptied(o object, member string) object {
	at := o
	path := strings.Split(member, ".")
	for _, name := range path[:len(path)-1] {
		at = step(deep(at), name)
	}
	if _, isString := at[path[len(path)-1]].(string); !isString {
		return nil
	}
	return but(o, member, "")
}

func TestAllWrongTypesAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	wrong := object{
		"serName": 1, "version": true, "state": []any{}, "serializer": object{}, "scopeOfLocality": 7,
		"consumedLocalOnly": "true", "livenessInterval": "60", "serCategory": object{"href": 1, "id": 2, "name": 3, "version": 4},
		"transportInfo": object{
			"id": 1, "name": false, "description": 3, "type": nil, "protocol": object{}, "version": 2.0,
			"endpoint": object{"uris": []any{"http://a", 5, nil}}, "security": object{"oAuth2Info": object{"grantTypes": "X", "tokenEndpoint": 1}},
		},
	}
	want := []string{
		"serName", "version", "state", "serializer", "scopeOfLocality", "consumedLocalOnly", "livenessInterval",
		"serCategory.href", "serCategory.id", "serCategory.name", "serCategory.version", "transportInfo.id", "transportInfo.name", "transportInfo.description", "transportInfo.type", "transportInfo.protocol",
		"transportInfo.version", "transportInfo.endpoint.uris[1]", "transportInfo.endpoint.uris[2]",
		"transportInfo.security.oAuth2Info.grantTypes", "transportInfo.security.oAuth2Info.tokenEndpoint",
	}
	problem := a.Post(a.services(), wrong).Problem(400)
	require.ElementsMatch(t, want, problem.Names())
	for _, name := range want {
		require.Contains(t, problem.Detail, name)
	}

	sub := object{"subscriptionType": 1, "callbackReference": object{}, "filteringCriteria": object{
		"serInstanceIds": "x", "serNames": []any{}, "serCategories": []any{}, "states": []any{"ACTIVE", 3}, "isLocal": "yes",
	}}
	require.ElementsMatch(t, []string{
		"subscriptionType", "callbackReference", "filteringCriteria.serInstanceIds", "filteringCriteria.states[1]", "filteringCriteria.isLocal",
	}, a.Post(a.subscriptions(), sub).Problem(400).Names())

	for name, x := range map[string]struct {
		body object
		want []string
	}{
		"objects for strings":     {but(own("x"), "serName", object{"a": 1}), []string{"serName"}},
		"a fraction for seconds":  {but(own("x"), "livenessInterval", 1.5), []string{"livenessInterval"}},
		"seconds below zero":      {but(own("x"), "livenessInterval", -1), []string{"livenessInterval"}},
		"an array of mixed types": {but(own("x"), "transportInfo.endpoint", object{"fqdn": []any{"a.example", 1, object{}}}), []string{"transportInfo.endpoint.fqdn[1]", "transportInfo.endpoint.fqdn[2]"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.ElementsMatch(t, x.want, p.Client(t).Post(a.services(), x.body).Problem(400).Names())
		})
	}
	require.Empty(t, a.Get(a.services()).Array())
	require.Empty(t, a.Get(a.subscriptions()).Object()["_links"].(object)["subscriptions"])
}

// What is not even an object is wrong as a whole: there is nothing to say about members it does not have.
func TestAnObjectOfAWrongTypeIsNamedAlone(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	for _, member := range []string{
		"serCategory", "transportInfo", "transportInfo.endpoint", "transportInfo.security", "transportInfo.security.oAuth2Info",
	} {
		for kind, value := range map[string]any{"a string": "t", "an array of strings": []any{"t"}, "a number": 1} {
			t.Run(member+" is "+kind, func(t *testing.T) {
				require.Equal(t, []string{member}, p.Client(t).Post(a.services(), but(full("x"), member, value)).Problem(400).Names())
			})
		}
	}
}

func TestOneNameMayBeRegisteredSeveralTimes(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	one, two := a.register(own("x")), a.register(own("x"))
	require.NotEqual(t, one.id, two.id)
	require.Equal(t, names([]object{one.info, two.info}, "serInstanceId"), names(a.Get(a.services()+"?ser_name=x").Array(), "serInstanceId"))
	a.remove(one.id)
	require.Equal(t, []string{two.id}, names(a.Get(services+"?ser_name=x").Array(), "serInstanceId"))
}

func TestOpenAPIDocumentsAreServed(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	c := p.Unchecked(t)
	var list struct {
		Documents []struct{ Name, YAML, JSON string }
	}
	c.Get("/openapi/").Is(200).Into(&list)
	var found []string
	for _, d := range list.Documents {
		found = append(found, d.Name)
		want, _ := openapi.YAML(d.Name)
		require.Equal(t, string(want), string(c.Get(d.YAML).Is(200).Body))
		require.NotEmpty(t, c.Get(d.JSON).Is(200).Object()["openapi"])
		c.Head(d.JSON).Is(200)
	}
	require.Equal(t, openapi.Documents(), found)
	c.Get("/openapi/nothing.yaml").Problem(404)
	c.Get("/openapi/..%2Fmec_service_mgmt.yaml").Problem(404)
	c.Post("/openapi/", nil).Problem(405)
}
