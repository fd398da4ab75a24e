package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
)

const (
	appID = "6abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"
	svcID = "ae2e1d1c-6f0b-4c32-8c5f-70f25b0c2f44"
	root  = "/mec_service_mgmt/v1"
)

// platform sends prepared responses in order, repeating the last one, and records the requests.
type platform struct {
	answers []func(http.ResponseWriter)
	asked   []asked
}

type asked struct {
	method, target string
	header         http.Header
	body           string
	at             time.Time
}

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.asked = append(p.asked, asked{r.Method, r.URL.RequestURI(), r.Header, string(body), time.Now()})
	p.answers[min(len(p.asked), len(p.answers))-1](w)
}

// RoundTrip serves requests without a network, because synctest does not recognise waiting for a network as blocked.
func (p *platform) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	inner := r.Clone(r.Context())
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	p.ServeHTTP(rec, inner)
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}

// answer returns a response with a status, a body and pairs of header names and values.
func answer(status int, body string, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		if status >= 400 {
			w.Header().Set("Content-Type", problem.ContentType)
		}
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func refusal(status int, header ...string) func(http.ResponseWriter) {
	doc, _ := json.Marshal(problem.Details{Title: http.StatusText(status), Status: status, Detail: "because"})
	return answer(status, string(doc), header...)
}

// newClient connects a client to a platform without a network.
func newClient(t *testing.T, p *platform, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New("http://mep.example", append([]client.Option{
		client.WithHTTPClient(&http.Client{Transport: p}),
	}, opts...)...)
	require.NoError(t, err)
	return c
}

const serviceBody = `{"serInstanceId":"` + svcID + `","serName":"location","version":"1","state":"ACTIVE","serializer":"JSON",` +
	`"_links":{"self":{"href":"http://mep.example/x/` + svcID + `"}}}`

func TestEveryRequestHasTheFormOfTheStandard(t *testing.T) {
	yes := true
	app := root + "/applications/" + appID
	subscription := `{"subscriptionType":"SerAvailabilityNotificationSubscription","callbackReference":"http://a/b"}`
	tests := map[string]struct {
		call         func(context.Context, *client.Client) error
		answer       func(http.ResponseWriter)
		method, path string
		body         string
	}{
		"discover": {
			func(ctx context.Context, c *client.Client) error {
				list, err := c.Discover(ctx, client.Query{Names: []string{"a,b", "c d"}, IsLocal: &yes, ScopeOfLocality: mp1.LocalityZone})
				require.Len(t, list, 1)
				return err
			},
			answer(200, "["+serviceBody+"]"), "GET", root + "/services?is_local=true&scope_of_locality=ZONE&ser_name=a%2Cb&ser_name=c+d", "",
		},
		"read of any service": {
			func(ctx context.Context, c *client.Client) error { _, err := c.Service(ctx, "a/b"); return err },
			answer(200, serviceBody), "GET", root + "/services/a%2Fb", "",
		},
		"transports": {
			func(ctx context.Context, c *client.Client) error { _, err := c.Transports(ctx); return err },
			answer(200, "[]"), "GET", root + "/transports", "",
		},
		"register": {
			func(ctx context.Context, c *client.Client) error {
				_, err := c.App(appID).Register(ctx, mp1.ServiceInfo{SerName: "location"})
				return err
			},
			answer(201, serviceBody), "POST", app + "/services", `{"serName":"location","version":"","state":"","serializer":""}`,
		},
		"own services": {
			func(ctx context.Context, c *client.Client) error {
				_, err := c.App(appID).Services(ctx, client.Query{CategoryID: "c", ConsumedLocalOnly: &yes})
				return err
			},
			answer(200, "[]"), "GET", app + "/services?consumed_local_only=true&ser_category_id=c", "",
		},
		"own service": {
			func(ctx context.Context, c *client.Client) error {
				_, err := c.App(appID).Service(ctx, svcID)
				return err
			},
			answer(200, serviceBody), "GET", app + "/services/" + svcID, "",
		},
		"replace": {
			func(ctx context.Context, c *client.Client) error {
				_, err := c.App(appID).Replace(ctx, svcID, mp1.ServiceInfo{SerName: "location"})
				return err
			},
			answer(200, serviceBody), "PUT", app + "/services/" + svcID, `{"serName":"location","version":"","state":"","serializer":""}`,
		},
		"remove": {
			func(ctx context.Context, c *client.Client) error { return c.App(appID).Remove(ctx, svcID) },
			answer(204, ""), "DELETE", app + "/services/" + svcID, "",
		},
		"heartbeat": {
			func(ctx context.Context, c *client.Client) error {
				imposed, err := c.App(appID).Heartbeat(ctx, svcID)
				require.Zero(t, imposed)
				return err
			},
			answer(204, ""), "PATCH", app + "/services/" + svcID + "/liveness", `{"state":"ACTIVE"}`,
		},
		"heartbeat with a new interval": {
			func(ctx context.Context, c *client.Client) error {
				imposed, err := c.App(appID).Heartbeat(ctx, svcID)
				require.Equal(t, 7*time.Second, imposed)
				return err
			},
			answer(200, `{"state":"ACTIVE","timeStamp":{"seconds":1,"nanoSeconds":0},"interval":7}`),
			"PATCH", app + "/services/" + svcID + "/liveness", `{"state":"ACTIVE"}`,
		},
		"liveness": {
			func(ctx context.Context, c *client.Client) error {
				_, err := c.App(appID).Liveness(ctx, svcID)
				return err
			},
			answer(200, `{"interval":7}`), "GET", app + "/services/" + svcID + "/liveness", "",
		},
		"subscribe": {
			func(ctx context.Context, c *client.Client) error {
				sub, err := c.App(appID).Subscribe(ctx, mp1.SerAvailabilityNotificationSubscription{CallbackReference: "http://a/b"})
				require.Equal(t, "s-1", sub.ID)
				return err
			},
			answer(201, subscription, "Location", "http://mep.example"+app+"/subscriptions/s-1"), "POST", app + "/subscriptions", subscription,
		},
		"subscriptions": {
			func(ctx context.Context, c *client.Client) error {
				list, err := c.App(appID).Subscriptions(ctx)
				require.Equal(t, "s-1", client.IDOf(list[0].Href))
				return err
			},
			answer(200, `{"_links":{"subscriptions":[{"href":"http://mep.example/subscriptions/s-1"}]}}`), "GET", app + "/subscriptions", "",
		},
		"subscription": {
			func(ctx context.Context, c *client.Client) error {
				_, err := c.App(appID).Subscription(ctx, "s-1")
				return err
			},
			answer(200, `{"_links":{"self":{"href":"/subscriptions/s-1"}}}`), "GET", app + "/subscriptions/s-1", "",
		},
		"unsubscribe": {
			func(ctx context.Context, c *client.Client) error { return c.App(appID).Unsubscribe(ctx, "s-1") },
			answer(204, ""), "DELETE", app + "/subscriptions/s-1", "",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &platform{answers: []func(http.ResponseWriter){tt.answer}}
			require.NoError(t, tt.call(t.Context(), newClient(t, p)))
			require.Len(t, p.asked, 1)
			require.Equal(t, tt.method, p.asked[0].method)
			require.Equal(t, tt.path, p.asked[0].target)
			require.Equal(t, tt.body, p.asked[0].body)
			require.Equal(t, tt.body != "", p.asked[0].header.Get("Content-Type") != "")
		})
	}
}

func TestAServiceCarriesItsETagAndLocation(t *testing.T) {
	p := &platform{answers: []func(http.ResponseWriter){
		answer(201, serviceBody, "ETag", `"1"`, "Location", "http://mep.example/y/"+svcID), answer(200, serviceBody, "ETag", `"2"`),
	}}
	server := httptest.NewServer(p)
	defer server.Close()
	c, err := client.New(server.URL+"/", client.WithPathPrefix("/mep/"))
	require.NoError(t, err)

	made, err := c.App(appID).Register(t.Context(), mp1.ServiceInfo{})
	require.NoError(t, err)
	require.Equal(t, svcID, made.Info.SerInstanceID)
	require.Equal(t, `"1"`, made.ETag)
	require.Equal(t, "http://mep.example/y/"+svcID, made.Location)

	changed, err := c.App(appID).Replace(t.Context(), svcID, made.Info, client.IfMatch(made.ETag))
	require.NoError(t, err)
	require.Equal(t, `"2"`, changed.ETag)
	require.Equal(t, "http://mep.example/x/"+svcID, changed.Location, "from the links when there is no header")
	require.Equal(t, `"1"`, p.asked[1].header.Get("If-Match"))
	require.Equal(t, "/mep"+root+"/applications/"+appID+"/services/"+svcID, p.asked[1].target)
}

func TestATokenIsSentWithEveryRequest(t *testing.T) {
	p := &platform{answers: []func(http.ResponseWriter){answer(200, "[]")}}
	token, tokenErr := "t-1", error(nil)
	c := newClient(t, p, client.WithTokenSource(func(context.Context) (string, error) { return token, tokenErr }))
	_, err := c.Transports(t.Context())
	require.NoError(t, err)
	require.Equal(t, "Bearer t-1", p.asked[0].header.Get("Authorization"))

	tokenErr = errors.New("no key")
	_, err = c.Transports(t.Context())
	require.ErrorIs(t, err, tokenErr)
	require.Len(t, p.asked, 1)
}

func TestARefusalIsAProblem(t *testing.T) {
	is := map[int]func(error) bool{404: client.IsNotFound, 409: client.IsConflict, 412: client.IsPreconditionFailed}
	for _, status := range []int{400, 403, 404, 409, 412, 500} {
		p := &platform{answers: []func(http.ResponseWriter){refusal(status)}}
		_, err := newClient(t, p).Service(t.Context(), svcID)
		var e *client.Error
		require.ErrorAs(t, err, &e)
		var doc *problem.Details
		require.ErrorAs(t, err, &doc)
		require.Equal(t, status, doc.Status)
		require.ErrorContains(t, err, "GET "+root+"/services/"+svcID)
		require.ErrorContains(t, err, "because")
		for s, holds := range is {
			require.Equal(t, s == status, holds(err), "%d for %d", s, status)
		}
		require.Len(t, p.asked, 1, "is not repeated")
	}
}

func TestAnAnswerThatIsNotOfAPlatform(t *testing.T) {
	tests := map[string]struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		"an error page":          {answer(502, "<html>", "Content-Type", "text/html"), "502 Bad Gateway: the answer carries no problem document"},
		"a broken problem":       {answer(404, "{"), "404 Not Found: the answer carries no problem document"},
		"a problem of no status": {answer(404, `{"title":"No","detail":"x"}`), "404 No: x"},
		"a page":                 {answer(200, "<html>"), "cannot be read: invalid character"},
		"nothing":                {answer(200, ""), "cannot be read: EOF"},
		"another object":         {answer(200, "{}"), "no serInstanceId"},
		"an endless body":        {answer(200, `{"serName":"`+strings.Repeat("x", 65<<20)), "too large"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &platform{answers: []func(http.ResponseWriter){tt.answer}}
			_, err := newClient(t, p).Service(t.Context(), svcID)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestWhatIsNoIDIsNotSent(t *testing.T) {
	p := &platform{answers: []func(http.ResponseWriter){answer(204, "")}}
	c := newClient(t, p)
	for _, id := range []string{"", ".", ".."} {
		require.ErrorContains(t, c.App(appID).Remove(t.Context(), id), "is no id")
		require.ErrorContains(t, c.App(id).Remove(t.Context(), svcID), "is no id")
	}
	require.Empty(t, p.asked)
}

func TestOnlyAnAbsoluteURLIsAPlatform(t *testing.T) {
	for _, u := range []string{"", "mep.example:8088", "ftp://mep.example", "http://", "http://mep.example?x=1", "http://mep.example#x", "http://[::1"} {
		_, err := client.New(u)
		require.ErrorContains(t, err, "base URL of the platform", u)
	}
}

func TestIDOf(t *testing.T) {
	for href, id := range map[string]string{
		"http://mep.example/a/s-1": "s-1", "/a/s-1/": "s-1", "a/b%2Fc?x=1": "c", "http://mep.example/": "", "": "", "http://[": "",
	} {
		require.Equal(t, id, client.IDOf(href), href)
	}
}

func TestAnUnavailablePlatformIsAskedAgain(t *testing.T) {
	ok, unavailable := answer(200, "[]"), refusal(503, "Retry-After", "3")
	ask := func(ctx context.Context, c *client.Client) error { _, err := c.Transports(ctx); return err }
	replace := func(pre ...client.Precondition) func(context.Context, *client.Client) error {
		return func(ctx context.Context, c *client.Client) error {
			_, err := c.App(appID).Replace(ctx, svcID, mp1.ServiceInfo{}, pre...)
			return err
		}
	}
	remove := func(ctx context.Context, c *client.Client) error { return c.App(appID).Remove(ctx, svcID) }
	tests := map[string]struct {
		answers  []func(http.ResponseWriter)
		call     func(context.Context, *client.Client) error
		attempts int
		took     time.Duration
		status   int // of the error
	}{
		"after the time it asks for":      {[]func(http.ResponseWriter){unavailable, unavailable, ok}, ask, 3, 6 * time.Second, 0},
		"also when there are too many":    {[]func(http.ResponseWriter){refusal(429, "Retry-After", "2"), ok}, ask, 2, 2 * time.Second, 0},
		"a few times only":                {[]func(http.ResponseWriter){unavailable}, ask, 4, 9 * time.Second, 503},
		"not when it wants a long wait":   {[]func(http.ResponseWriter){refusal(503, "Retry-After", "60")}, ask, 1, 0, 503},
		"not beyond the deadline":         {[]func(http.ResponseWriter){refusal(503, "Retry-After", "9")}, ask, 3, 18 * time.Second, 503},
		"not to register":                 {[]func(http.ResponseWriter){unavailable}, register, 1, 0, 503},
		"to replace":                      {[]func(http.ResponseWriter){unavailable, answer(200, serviceBody)}, replace(), 2, 3 * time.Second, 0},
		"not to replace conditionally":    {[]func(http.ResponseWriter){unavailable}, replace(client.IfMatch(`"1"`)), 1, 0, 503},
		"to remove":                       {[]func(http.ResponseWriter){unavailable, answer(204, "")}, remove, 2, 3 * time.Second, 0},
		"to remove, which it had done":    {[]func(http.ResponseWriter){unavailable, refusal(404)}, remove, 2, 3 * time.Second, 0},
		"but what is not there is no 503": {[]func(http.ResponseWriter){refusal(404)}, remove, 1, 0, 404},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{answers: tt.answers}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				start := time.Now()
				err := tt.call(ctx, newClient(t, p))
				require.Equal(t, tt.took, time.Since(start))
				require.Len(t, p.asked, tt.attempts)
				for _, a := range p.asked {
					require.Equal(t, p.asked[0].body, a.body)
				}
				if tt.status == 0 {
					require.NoError(t, err)
					return
				}
				var doc *problem.Details
				require.ErrorAs(t, err, &doc)
				require.Equal(t, tt.status, doc.Status)
			})
		})
	}
}

func register(ctx context.Context, c *client.Client) error {
	_, err := c.App(appID).Register(ctx, mp1.ServiceInfo{})
	return err
}

func TestWithoutRetryAfterTheWaitsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{answers: []func(http.ResponseWriter){refusal(503)}}
		_, err := newClient(t, p).Transports(t.Context())
		require.Error(t, err)
		for i, most := range []time.Duration{200, 400, 800} {
			wait := p.asked[i+1].at.Sub(p.asked[i].at)
			require.LessOrEqual(t, wait, most*time.Millisecond)
			require.GreaterOrEqual(t, wait, most*time.Millisecond/2)
		}
	})
}

func TestRetryAfterMayBeADate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(5 * time.Second)
		p := &platform{answers: []func(http.ResponseWriter){
			refusal(503, "Retry-After", at.UTC().Format(http.TimeFormat)), answer(200, "[]"),
		}}
		_, err := newClient(t, p).Transports(t.Context())
		require.NoError(t, err)
		require.True(t, p.asked[1].at.Equal(at))
	})
}

func TestAContextEndsTheWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{answers: []func(http.ResponseWriter){refusal(503, "Retry-After", "9")}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := newClient(t, p).Transports(ctx)
		require.Error(t, err)
		require.Equal(t, time.Second, time.Since(start))
		require.Len(t, p.asked, 1)
	})
}

// rotating supplies a new token after each invalidation; only the latest is valid.
type rotating struct{ n atomic.Int64 }

func (r *rotating) Token(context.Context) (string, error) { return fmt.Sprint("t", r.n.Load()), nil }
func (r *rotating) Invalidate(token string) {
	if token == fmt.Sprint("t", r.n.Load()) {
		r.n.Add(1)
	}
}

func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	var asked atomic.Int64
	good := "Bearer t1"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != good {
			w.Header().Set("Content-Type", problem.ContentType)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"status":401,"detail":"the token was revoked"}`)
			return
		}
		_, _ = io.WriteString(w, `[]`)
	}))
	t.Cleanup(srv.Close)
	c, err := client.New(srv.URL, client.WithTokens(&rotating{}))
	require.NoError(t, err)
	_, err = c.Discover(t.Context(), client.Query{})
	require.NoError(t, err)
	require.EqualValues(t, 2, asked.Load())
	good = "nothing any more"
	_, err = c.Discover(t.Context(), client.Query{})
	require.ErrorContains(t, err, "revoked")
	require.EqualValues(t, 4, asked.Load(), "it is not tried without end")
}
