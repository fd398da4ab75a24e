package blackbox

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// links lists the subscriptions of an app as they are listed to it.
func links(a app) []object {
	a.TB().Helper()
	var list struct {
		Links struct {
			Subscriptions []object `json:"subscriptions"`
		} `json:"_links"`
	}
	a.Get(a.subscriptions()).Is(200).Into(&list)
	require.NotNil(a.TB(), list.Links.Subscriptions, "an empty list is a list")
	return list.Links.Subscriptions
}

func TestASubscriptionLivesUntilItIsDeleted(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	for _, prefix := range []string{"", "/mep"} {
		for name, filter := range map[string]object{
			"no filter": nil,
			"instances": {"serInstanceIds": []any{"a", "b"}},
			"names":     {"serNames": []any{"a", "b"}, "states": []any{"ACTIVE", "INACTIVE", "SUSPENDED"}, "isLocal": true},
			"categories": {"serCategories": []any{
				object{"href": "/c", "id": "c", "name": "n", "version": "1"}, object{"href": "/d", "id": "d", "name": "n", "version": "1"},
			}},
			"states":  {"states": []any{"SUSPENDED"}},
			"isLocal": {"isLocal": false},
		} {
			t.Run("below "+prefix+" with "+name, func(t *testing.T) {
				t.Parallel()
				a := newApp(p.Client(t)).under(prefix)
				require.Empty(t, links(a))
				body := subscription("http://10.0.0.1:8080/cb?x=1")
				if filter != nil {
					body["filteringCriteria"] = filter
				}
				posted := a.Post(a.subscriptions(), body).Is(201)
				href := posted.Header.Get("Location")
				require.True(t, strings.HasPrefix(href, p.URL("mp1")+a.subscriptions()+"/"), href)
				want := but(body, "_links", object{"self": object{"href": href}})
				same(t, want, posted.Object())

				got := a.Get(href).Is(200)
				same(t, want, got.Object())
				require.Equal(t, posted.ETag(), got.ETag())
				require.Equal(t, posted.ETag(), a.Head(href).Is(200).ETag())
				const kind = "SerAvailabilityNotificationSubscription"
				same(t, []object{{"href": href, "subscriptionType": kind, "rel": kind}}, links(a))

				second := a.subscribe("https://app.example/cb", nil)
				require.Len(t, links(a), 2)
				require.Empty(t, links(newApp(a.Client)), "each app has its own")

				require.Empty(t, a.Delete(href).Is(204).Body)
				a.Get(href).Problem(404)
				a.Delete(href).Problem(404)
				require.Len(t, links(a), 1)
				a.Delete(a.subscription(second)).Is(204)
				require.Empty(t, links(a))
			})
		}
	}
}

func TestSubscriptionsThatAreRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	good := subscription("http://10.0.0.1/")
	filter := func(f object) object { return but(good, "filteringCriteria", f) }
	cat := []any{object{"href": "/c", "id": "c", "name": "n", "version": "1"}}
	for name, x := range map[string]struct {
		body  object
		about string
	}{
		"another type":           {but(good, "subscriptionType", "AppTerminationNotificationSubscription"), "subscriptionType"},
		"the notification type":  {but(good, "subscriptionType", "SerAvailabilityNotification"), "subscriptionType"},
		"instances and names":    {filter(object{"serInstanceIds": []any{"a"}, "serNames": []any{"b"}}), "filteringCriteria"},
		"names and categories":   {filter(object{"serNames": []any{"b"}, "serCategories": cat}), "filteringCriteria"},
		"instances, categories":  {filter(object{"serInstanceIds": []any{"b"}, "serCategories": cat}), "filteringCriteria"},
		"an unknown state":       {filter(object{"states": []any{"ACTIVE", "BUSY"}}), "filteringCriteria.states[1]"},
		"an empty name":          {filter(object{"serNames": []any{""}}), "filteringCriteria.serNames[0]"},
		"a category without id":  {filter(object{"serCategories": []any{object{"href": "/c", "name": "n", "version": "1"}}}), "filteringCriteria.serCategories[0].id"},
		"a filter that is none":  {but(good, "filteringCriteria", []any{}), "filteringCriteria"},
		"null within a list":     {filter(object{"serNames": []any{"a", nil}}), "filteringCriteria.serNames[1]"},
		"a call-back that is no": {but(good, "callbackReference", 5), "callbackReference"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(p.Client(t))
			require.Contains(t, a.Post(a.subscriptions(), x.body).Problem(400).Names(), x.about)
			require.Empty(t, links(a))
		})
	}
}

// refusals are call-back references and whether they are refused.
func refusals(t *testing.T, p *harness.Process, targets map[string]string) {
	t.Helper()
	for name, target := range targets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(p.Client(t))
			problem := a.Post(a.subscriptions(), subscription(target)).Problem(400)
			require.Equal(t, []string{"callbackReference"}, problem.Names())
			require.Contains(t, problem.Detail, "callbackReference")
			require.Empty(t, links(a))
		})
	}
}

func TestCallbackTargets(t *testing.T) {
	t.Parallel()
	t.Run("that are never allowed", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t)
		_, mp1, _ := strings.Cut(p.Addr("mp1"), ":")
		_, ops, _ := strings.Cut(p.Addr("ops"), ":")
		refusals(t, p, map[string]string{
			"link-local":                       "http://169.254.1.1/cb",
			"the metadata service of a cloud":  "http://169.254.169.254/latest/meta-data",
			"link-local, IPv6":                 "http://[fe80::1]/cb",
			"link-local, IPv6 with zone":       "http://[fe80::1%25eth0]/cb",
			"link-local, IPv4 in IPv6":         "http://[::ffff:169.254.1.1]/cb",
			"multicast":                        "http://224.0.0.1/cb",
			"multicast, IPv6":                  "http://[ff02::1]/cb",
			"broadcast":                        "http://255.255.255.255/cb",
			"unspecified":                      "http://0.0.0.0:8080/cb",
			"unspecified, IPv6":                "http://[::]:8080/cb",
			"unspecified, IPv4 in IPv6":        "http://[::ffff:0.0.0.0]:8080/cb",
			"the platform's Mp1":               p.URL("mp1") + "/cb",
			"the platform's Mp1, IPv4 in IPv6": "http://[::ffff:127.0.0.1]:" + mp1 + "/cb",
			"the platform's operations":        p.URL("ops") + "/metrics",
			"the platform's operations, https": "https://127.0.0.1:" + ops + "/",
			"ftp":                              "ftp://10.0.0.1/cb",
			"file":                             "file:///etc/passwd",
			"javascript":                       "javascript:alert(1)",
			"gopher":                           "gopher://10.0.0.1:25/x",
			"user information":                 "http://user:secret@10.0.0.1/cb",
			"a user name":                      "http://user@10.0.0.1/cb",
			"relative":                         "/cb",
			"relative to the scheme":           "//10.0.0.1/cb",
			"no scheme":                        "10.0.0.1/cb",
			"no host":                          "http:///cb",
			"no host but a port":               "http://:8080/cb",
			"nothing but a scheme":             "http:",
			"a fragment":                       "http://10.0.0.1/cb#x",
			"port 0":                           "http://10.0.0.1:0/cb",
			"a port out of range":              "http://10.0.0.1:65536/cb",
			"a port that is no number":         "http://10.0.0.1:x/cb",
			"white space":                      "http://10.0.0.1/a b",
			"a new line":                       "http://10.0.0.1/\r\nX: y",
			"empty":                            "",
			"too long":                         "http://10.0.0.1/" + strings.Repeat("a", 2048),
		})
	})
	t.Run("that are allowed", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t)
		a := newApp(p.Client(t))
		for _, target := range []string{
			"http://10.0.0.1/", "http://192.168.1.1:8080/a/b?c=d", "https://172.16.0.1/", "http://[fd00::1]/", "http://93.184.216.34/",
			"http://app.example", "HTTPS://APP.example:443/x", "http://127.0.0.1:9/", "http://[::1]:9/", "http://127.0.0.1:9/%20",
		} {
			a.Post(a.subscriptions(), subscription(target)).Is(201)
		}
	})
	for how, options := range map[string][]harness.Option{
		"by flag":        {harness.Args("--callbacks-allow-loopback=false")},
		"by environment": {harness.Env("MEP_CALLBACKS_ALLOW_LOOPBACK=false")},
		"by file":        {harness.Config("callbacks: {allowLoopback: false}\n")},
	} {
		t.Run("loopback is refused "+how, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, options...)
			refusals(t, p, map[string]string{
				"127.0.0.1": "http://127.0.0.1:9/", "127.1.2.3": "http://127.1.2.3/", "::1": "http://[::1]:9/",
				"127.0.0.1 in IPv6": "http://[::ffff:127.0.0.1]:9/",
			})
			a := newApp(p.Client(t))
			a.Post(a.subscriptions(), subscription("http://10.0.0.1/")).Is(201)
		})
	}
	t.Run("private addresses are refused by flag", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t, harness.Args("--callbacks-allow-private=false"))
		refusals(t, p, map[string]string{
			"10.0.0.0/8": "http://10.0.0.1/", "172.16.0.0/12": "http://172.31.0.1/", "192.168.0.0/16": "http://192.168.0.1/",
			"fc00::/7": "http://[fd00::1]/", "in IPv6": "http://[::ffff:10.0.0.1]/",
		})
		a := newApp(p.Client(t))
		a.Post(a.subscriptions(), subscription("http://127.0.0.1:9/")).Is(201)
	})
}

func TestNamesAreCheckedWhenTheyAreCalled(t *testing.T) {
	t.Parallel()
	// A name says nothing about its addresses until it is resolved.
	t.Run("the platform does not call itself", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t)
		a := newApp(p.Client(t))
		_, port, _ := strings.Cut(p.Addr("mp1"), ":")
		answer := a.Post(a.subscriptions(), subscription("http://localhost:"+port+services))
		if answer.Status == 400 {
			return // refused at once is as good
		}
		answer.Is(201)
		a.register(own("x"))
		require.Contains(t, lastError(t, p, "own listener"), "own listener")
		require.NotContains(t, p.Log(), "method=POST path="+services+" ")
	})
	t.Run("loopback is not called where it is not allowed", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t, harness.Args("--callbacks-allow-loopback=false"))
		cb := harness.NewSubscriber(t)
		a := newApp(p.Client(t))
		answer := a.Post(a.subscriptions(), subscription(strings.Replace(cb.URL("/"), "127.0.0.1", "localhost", 1)))
		if answer.Status == 400 {
			return
		}
		answer.Is(201)
		a.register(own("x"))
		require.Contains(t, lastError(t, p, "loopback"), "loopback")
		require.Empty(t, cb.All())
	})
}

// delivery is how the delivery to a subscriber stands, as operators see it.
type delivery struct {
	SubscriptionID    string
	AppInstanceID     string
	CallbackReference string
	Pending           int
	Attempts          int
	Cursor            int64
	LastError         string
	LastDelivered     string
	LastAttempt       string
	FailingSince      string
}

func deliveries(t testing.TB, p *harness.Process) []delivery {
	t.Helper()
	var list []delivery
	p.Ops(t).Get("/notifications/subscriptions").Is(200).Into(&list)
	return list
}

// lastError waits until the delivery to the only subscriber failed for a reason, and returns the reason.
func lastError(t testing.TB, p *harness.Process, reason string) string {
	t.Helper()
	var found string
	harness.Eventually(t, "delivery fails because of "+reason, func() error {
		list := deliveries(t, p)
		if len(list) == 1 {
			found = list[0].LastError
		}
		return harness.Not(strings.Contains(found, reason), "deliveries: %+v", list)
	})
	return found
}
