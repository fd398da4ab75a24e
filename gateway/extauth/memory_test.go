package extauth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

// roundTripper answers questions without a network, as synctest requires.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, header http.Header, body string) *http.Response {
	if header == nil {
		header = make(http.Header)
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}
}

// counting answers with what respond returns, and counts the questions.
func counting(asked *atomic.Int64, respond func() *http.Response) roundTripper {
	return func(*http.Request) (*http.Response, error) {
		asked.Add(1)
		return respond(), nil
	}
}

func allows() *http.Response { return answer(200, nil, "") }

func TestEqualQuestionsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Cache: "1m", Return: []string{"X-User"}}, counting(&asked, func() *http.Response {
			return answer(200, http.Header{"X-User": {fmt.Sprint(asked.Load())}}, "")
		}))
		decide := func() string {
			q := question()
			q.RequestID = fmt.Sprint(time.Now().UnixNano())
			d, err := w.Decide(t.Context(), q)
			require.NoError(t, err)
			h := make(http.Header)
			d.Apply(h)
			return h.Get("X-User")
		}
		require.Equal(t, "1", decide())
		time.Sleep(time.Minute - time.Nanosecond)
		require.Equal(t, "1", decide(), "with what the answer gave along, whatever the request id")
		time.Sleep(time.Nanosecond)
		require.Equal(t, "2", decide())
		w.requireCounts(t, map[string]int{"allowed": 2, "remembered": 1})
	})
}

func TestEverythingThatIsAskedCounts(t *testing.T) {
	var asked atomic.Int64
	w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Cache: "1m"}, counting(&asked, allows))
	for name, change := range map[string]func(q *gateway.ExternalAuthRequest){
		"nothing":       func(*gateway.ExternalAuthRequest) {},
		"method":        func(q *gateway.ExternalAuthRequest) { q.Method = "PUT" },
		"host":          func(q *gateway.ExternalAuthRequest) { q.Host = "b.example" },
		"path":          func(q *gateway.ExternalAuthRequest) { q.Path = "/a b" },
		"query":         func(q *gateway.ExternalAuthRequest) { q.Query = "x=2" },
		"header field":  func(q *gateway.ExternalAuthRequest) { q.Headers = map[string][]string{"Accept": {"text/html"}} },
		"split field":   func(q *gateway.ExternalAuthRequest) { q.Headers = map[string][]string{"Accept": {"*/*", ""}} },
		"client":        func(q *gateway.ExternalAuthRequest) { q.Client = "192.0.2.2" },
		"consumer":      func(q *gateway.ExternalAuthRequest) { q.Consumer = "" },
		"scopes":        func(q *gateway.ExternalAuthRequest) { q.Scopes = nil },
		"route":         func(q *gateway.ExternalAuthRequest) { q.Route = "service:t" },
		"service":       func(q *gateway.ExternalAuthRequest) { q.Service = "t" },
		"method + host": func(q *gateway.ExternalAuthRequest) { q.Method, q.Host = "GETa", ".example" },
	} {
		before := asked.Load()
		for range 3 {
			q := question()
			change(q)
			_, err := w.Decide(t.Context(), q)
			require.NoError(t, err)
		}
		require.Equal(t, before+1, asked.Load(), "another %s is another question", name)
	}
}

func TestWhatIsNotRemembered(t *testing.T) {
	withBody := question()
	withBody.Body = []byte("x")
	for name, x := range map[string]struct {
		cache    gateway.Duration
		question *gateway.ExternalAuthRequest
		respond  func() *http.Response
		asked    int64
	}{
		"without cache":   {"", question(), allows, 3},
		"with a body":     {"1m", withBody, allows, 3},
		"no-store":        {"1m", question(), func() *http.Response { return answer(200, http.Header{"Cache-Control": {"private, No-Store"}}, "") }, 3},
		"refused with it": {"1m", question(), func() *http.Response { return answer(403, http.Header{"Cache-Control": {"no-store"}}, "") }, 3},
		"no-cache":        {"1m", question(), func() *http.Response { return answer(200, http.Header{"Cache-Control": {"a", "no-cache"}}, "") }, 3},
		"of no age":       {"1m", question(), func() *http.Response { return answer(200, http.Header{"Cache-Control": {"max-age=0"}}, "") }, 3},
		"of a wrong age":  {"1m", question(), func() *http.Response { return answer(200, http.Header{"Cache-Control": {"max-age=-1"}}, "") }, 3},
		"failures":        {"1m", question(), func() *http.Response { return answer(500, nil, "") }, 3},
		"a refusal is":    {"1m", question(), func() *http.Response { return answer(403, nil, "") }, 1},
		"other caching":   {"1m", question(), func() *http.Response { return answer(200, http.Header{"Cache-Control": {"public, max-age=60"}}, "") }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Cache: x.cache, FailOpen: true}, counting(&asked, x.respond))
			for range 3 {
				_, err := w.Decide(t.Context(), x.question)
				require.NoError(t, err)
			}
			require.Equal(t, x.asked, asked.Load())
		})
	}
}

func TestAnAnswerCanShortenItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Cache: "1h"}, counting(&asked, func() *http.Response {
			return answer(200, http.Header{"Cache-Control": {`max-age="5"`}}, "")
		}))
		for range 12 {
			_, err := w.Decide(t.Context(), question())
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.EqualValues(t, 3, asked.Load())
	})
}

func TestEqualQuestionsAtATimeAreAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Cache: "1m", Timeout: "30s"}, roundTripper(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			select {
			case <-release:
				return allows(), nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}))
		leader, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			_, err := w.Decide(leader, question())
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		for range 9 {
			all.Go(func() {
				d, err := w.Decide(t.Context(), question())
				require.NoError(t, err)
				require.True(t, d.Allowed)
			})
		}
		synctest.Wait()
		leave() // does not affect the others
		synctest.Wait()
		close(release)
		all.Wait()
		require.EqualValues(t, 1, asked.Load())
		w.requireCounts(t, map[string]int{"allowed": 1, "remembered": 9, "cancelled": 1})
	})
}

func TestTheLastWhoLeavesEndsTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Cache: "1m", Timeout: "1h"}, roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			ended.Add(1)
			return nil, r.Context().Err()
		}))
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				_, err := w.Decide(ctx, question())
				require.ErrorIs(t, err, context.Canceled)
			})
		}
		synctest.Wait()
		leave()
		all.Wait()
		require.EqualValues(t, 1, ended.Load(), "before the last one returns")
		_, err := w.Decide(ctx, question())
		require.ErrorIs(t, err, context.Canceled, "and who has left before asks nothing")
	})
}

func TestAnAnswerThatMustNotBeKeptIsForOneCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Cache: "1m", Timeout: "30s"}, roundTripper(func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			return answer(200, http.Header{"Cache-Control": {"no-store"}}, ""), nil
		}))
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				_, err := w.Decide(t.Context(), question())
				require.NoError(t, err)
			})
		}
		all.Wait()
		require.EqualValues(t, 5, asked.Load())
		w.requireCounts(t, map[string]int{"allowed": 5})
	})
}

func TestMemoryIsBounded(t *testing.T) {
	var asked atomic.Int64
	body := strings.Repeat("x", 60<<10)
	w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Cache: "1h"}, counting(&asked, func() *http.Response {
		return answer(403, http.Header{"Content-Type": {"text/plain"}}, body)
	}))
	ask := func(i int) {
		q := question()
		q.Path = fmt.Sprintf("/%d", i)
		_, err := w.Decide(t.Context(), q)
		require.NoError(t, err)
	}
	const many = 200 // of 60 KiB each, more than the cache holds
	for i := range many {
		ask(i)
	}
	ask(many - 1)
	require.EqualValues(t, many, asked.Load(), "the latest is remembered")
	ask(0)
	require.EqualValues(t, many+1, asked.Load(), "the first is not any more")

	body = ""
	for i := range 5000 {
		ask(many + i)
	}
	before := asked.Load()
	ask(many + 4999)
	require.Equal(t, before, asked.Load())
	ask(many)
	require.Equal(t, before+1, asked.Load())
}
