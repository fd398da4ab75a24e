package auth_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/signing"
)

// service is a fake token service without a network, because synctest does not see network waits. It returns the prepared
// answers in order, then repeats the last one, and records the requests.
type service struct {
	answers []func(http.ResponseWriter)
	delay   time.Duration

	mu    sync.Mutex
	asked []*http.Request
	at    []time.Time
}

// RoundTrip responds after the delay.
func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	kept := r.Clone(context.Background())
	if r.Body != nil {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		kept.Body = io.NopCloser(strings.NewReader(string(text)))
	}
	s.mu.Lock()
	s.asked, s.at = append(s.asked, kept), append(s.at, time.Now())
	answer := s.answers[min(len(s.asked), len(s.answers))-1]
	s.mu.Unlock()
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(s.delay):
	}
	rec := httptest.NewRecorder()
	answer(rec)
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}

// source returns a source of tokens that uses the service.
func (s *service) source(t *testing.T, change ...func(*auth.Config)) *auth.Source {
	t.Helper()
	cfg := auth.Config{
		URL: "https://mep.example:8443", AccessKeyID: accessKey, SecretKey: secretKey, HTTPClient: &http.Client{Transport: s},
	}
	for _, c := range change {
		c(&cfg)
	}
	source, err := auth.NewSource(cfg)
	require.NoError(t, err)
	return source
}

func signed(c *auth.Config) { c.Signed = true }

// answer returns a response with the status, the body and pairs of header names and values.
func answer(status int, body string, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func token(text string, seconds int) func(http.ResponseWriter) {
	return answer(200, fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":%d}`, text, seconds))
}

func refusal(status int, code string, header ...string) func(http.ResponseWriter) {
	return answer(status, fmt.Sprintf(`{"error":%q,"error_description":"because"}`, code), header...)
}

func requireToken(t *testing.T, want string, s *auth.Source) {
	t.Helper()
	got, err := s.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// requireStatus checks that err is an error response of the service with this status.
func requireStatus(t *testing.T, status int, err error) {
	t.Helper()
	e, ok := errors.AsType[*auth.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, status, e.Status)
}

func TestClientCredentialsRequest(t *testing.T) {
	odd := "A+/=_5678901234567+9"
	s := &service{answers: []func(http.ResponseWriter){token("a", 3600)}}
	requireToken(t, "a", s.source(t, func(c *auth.Config) {
		c.URL, c.AccessKeyID, c.Scopes = "https://mep.example/prefix/", odd, []string{"mp1", "ops"}
	}))
	r := s.asked[0]
	require.Equal(t, http.MethodPost, r.Method)
	require.Equal(t, "https://mep.example/prefix/oauth2/token", r.URL.String())
	require.Equal(t, "application/x-www-form-urlencoded", r.Header.Get("Content-Type"))
	id, secret, ok := r.BasicAuth()
	require.True(t, ok)
	require.Equal(t, url.QueryEscape(odd), id, "RFC 6749 2.3.1 wants it escaped")
	require.Equal(t, secretKey, secret)
	require.NoError(t, r.ParseForm())
	require.Equal(t, url.Values{"grant_type": {"client_credentials"}, "scope": {"mp1 ops"}}, r.PostForm)
}

func TestWithoutScopesTheServiceDecides(t *testing.T) {
	s := &service{answers: []func(http.ResponseWriter){token("a", 3600)}}
	requireToken(t, "a", s.source(t))
	require.NoError(t, s.asked[0].ParseForm())
	require.False(t, s.asked[0].PostForm.Has("scope"))
}

func TestSignedRequest(t *testing.T) {
	s := &service{answers: []func(http.ResponseWriter){token("a", 3600)}}
	requireToken(t, "a", s.source(t, signed))
	r := s.asked[0]
	require.Equal(t, http.MethodPost, r.Method)
	require.Equal(t, "https://mep.example:8443/mep/token", r.URL.String())
	require.Nil(t, r.Body)
	a, err := signing.ParseAuthorization(r.Header.Get("Authorization"))
	require.NoError(t, err)
	require.Equal(t, accessKey, a.AccessKeyID)
	m := signing.Message{Method: "POST", Host: "mep.example:8443", Path: "/mep/token", Header: r.Header}
	require.Equal(t, a.Signature, hex.EncodeToString(m.Signature([]byte(secretKey), a.SignedHeaders)))
}

func TestASignatureIsNotSentTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){token("a", 3600)}}
		source := s.source(t, signed)
		dates := make(map[string]bool)
		for range 5 {
			requireToken(t, "a", source)
			source.Invalidate("a")
		}
		for _, r := range s.asked {
			dates[r.Header.Get(signing.DateHeader)] = true
		}
		require.Len(t, dates, 5)
	})
}

func TestATokenIsKeptUntilAFifthOfItsLifeIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){token("a", 100), token("b", 100)}, delay: time.Second}
		source := s.source(t)
		requireToken(t, "a", source) // of which one second has gone
		time.Sleep(79*time.Second - time.Nanosecond)
		requireToken(t, "a", source)
		require.Len(t, s.asked, 1)
		time.Sleep(time.Nanosecond)
		requireToken(t, "b", source)
		require.Len(t, s.asked, 2)
	})
}

func TestThePresentTokenServesWhileRefreshingFails(t *testing.T) {
	for name, failure := range map[string]func(http.ResponseWriter){
		"unavailable": refusal(503, "temporarily_unavailable", "Retry-After", "1"),
		"refused":     refusal(401, "invalid_client"),
		"no answer":   func(http.ResponseWriter) { time.Sleep(time.Hour) },
		"nonsense":    answer(200, "hello"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &service{answers: []func(http.ResponseWriter){token("a", 100), failure, failure, token("b", 100)}}
				if name == "no answer" {
					s.answers = []func(http.ResponseWriter){token("a", 100)}
				}
				source := s.source(t)
				requireToken(t, "a", source)
				if name == "no answer" {
					s.delay = time.Hour
				}
				time.Sleep(85 * time.Second)
				for range 10 {
					requireToken(t, "a", source)
				}
				require.Len(t, s.asked, 2, "the service is left alone for a moment")
				time.Sleep(2 * time.Second)
				requireToken(t, "a", source)
				require.Len(t, s.asked, 3)
				if name == "no answer" {
					return
				}
				time.Sleep(2 * time.Second)
				requireToken(t, "b", source)
			})
		})
	}
}

func TestOthersUseThePresentTokenWhileOneRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){token("a", 100), token("b", 100)}}
		source := s.source(t)
		requireToken(t, "a", source)
		time.Sleep(85 * time.Second)
		s.delay = 3 * time.Second
		var wg sync.WaitGroup
		wg.Go(func() { requireToken(t, "b", source) })
		synctest.Wait()
		start := time.Now()
		requireToken(t, "a", source)
		require.Zero(t, time.Since(start))
		wg.Wait()
		require.Len(t, s.asked, 2)
	})
}

func TestOneFetchAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){token("a", 100)}, delay: 3 * time.Second}
		source := s.source(t)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { requireToken(t, "a", source) })
		}
		wg.Wait()
		require.Len(t, s.asked, 1)
	})
}

func TestThoseWhoWaitHonourTheirContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){token("a", 100)}, delay: 10 * time.Second}
		source := s.source(t)
		var wg sync.WaitGroup
		wg.Go(func() { requireToken(t, "a", source) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := source.Token(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		wg.Wait()
	})
}

func TestAnotherTakesOverFromACallerWhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){token("a", 100)}, delay: 10 * time.Second}
		source := s.source(t)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := source.Token(ctx)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the caller who gave up was told %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() { requireToken(t, "a", source) })
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		require.Len(t, s.asked, 2)
		require.Equal(t, time.Second, s.at[1].Sub(s.at[0]))
	})
}

func TestABusyServiceIsAskedAgainWhenItSays(t *testing.T) {
	for name, x := range map[string]struct {
		status int
		after  []string
		least  time.Duration
		most   time.Duration
	}{
		"unavailable":       {503, []string{"Retry-After", "3"}, 3 * time.Second, 3 * time.Second},
		"too many requests": {429, []string{"Retry-After", "7"}, 7 * time.Second, 7 * time.Second},
		"date":              {503, []string{"Retry-After", "Sat, 01 Jan 2000 00:00:05 GMT"}, 5 * time.Second, 5 * time.Second},
		"without a time":    {503, nil, 100 * time.Millisecond, 250 * time.Millisecond},
		"nonsense":          {503, []string{"Retry-After", "soon"}, 100 * time.Millisecond, 250 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &service{answers: []func(http.ResponseWriter){
					refusal(x.status, "temporarily_unavailable", x.after...), token("a", 100),
				}}
				source := s.source(t)
				var wg sync.WaitGroup
				for range 5 {
					wg.Go(func() { requireToken(t, "a", source) })
				}
				wg.Wait()
				require.Len(t, s.asked, 2)
				wait := s.at[1].Sub(s.at[0])
				require.GreaterOrEqual(t, wait, x.least)
				require.LessOrEqual(t, wait, x.most)
			})
		})
	}
}

func TestABusyServiceIsNotAskedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){refusal(503, "temporarily_unavailable", "Retry-After", "2")}}
		_, err := s.source(t).Token(t.Context())
		requireStatus(t, 503, err)
		require.Len(t, s.asked, 4)
	})
}

func TestThereIsNoWaitThatTheContextDoesNotAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){refusal(503, "temporarily_unavailable", "Retry-After", "5"), token("a", 100)}}
		source := s.source(t)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		start := time.Now()
		_, err := source.Token(ctx)
		requireStatus(t, 503, err)
		require.Zero(t, time.Since(start))

		requireToken(t, "a", source) // another caller has the time
		require.Equal(t, 5*time.Second, s.at[1].Sub(s.at[0]))
	})
}

func TestAWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){refusal(503, "temporarily_unavailable", "Retry-After", "5")}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := s.source(t).Token(ctx)
		requireStatus(t, 503, err)
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestALockedAccessKeyIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){refusal(403, "access_denied", "Retry-After", "900"), token("a", 100)}}
		source := s.source(t)
		start := time.Now()
		for range 20 {
			_, err := source.Token(t.Context())
			requireStatus(t, 403, err)
			require.ErrorContains(t, err, "access_denied: because")
		}
		require.Zero(t, time.Since(start))
		require.Len(t, s.asked, 1)
		time.Sleep(900 * time.Second)
		requireToken(t, "a", source)
	})
}

func TestARefusalIsReturnedAtOnceAndTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){refusal(401, "invalid_client"), refusal(401, "invalid_client"), token("a", 100)}}
		source := s.source(t)
		for _, wait := range []time.Duration{250 * time.Millisecond, 500 * time.Millisecond} {
			for range 3 {
				_, err := source.Token(t.Context())
				requireStatus(t, 401, err)
				require.ErrorContains(t, err, "POST https://mep.example:8443/oauth2/token: 401 "+http.StatusText(http.StatusUnauthorized)+": invalid_client: because")
			}
			time.Sleep(wait)
		}
		requireToken(t, "a", source)
		require.Len(t, s.asked, 3)
	})
}

func TestAnInvalidatedTokenIsReplaced(t *testing.T) {
	s := &service{answers: []func(http.ResponseWriter){token("a", 100), token("b", 100)}}
	source := s.source(t)
	source.Invalidate("before there is any")
	requireToken(t, "a", source)
	source.Invalidate("another")
	requireToken(t, "a", source)
	source.Invalidate("a")
	requireToken(t, "b", source)
	source.Invalidate("a")
	requireToken(t, "b", source)
	require.Len(t, s.asked, 2)
}

func TestAnInvalidatedTokenDoesNotServeAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){token("a", 100), refusal(400, "invalid_scope")}}
		source := s.source(t)
		requireToken(t, "a", source)
		time.Sleep(85 * time.Second)
		s.delay = time.Second
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := source.Token(t.Context())
			requireStatus(t, 400, err)
		})
		synctest.Wait()
		source.Invalidate("a")
		wg.Wait()
	})
}

func TestAnswersThatAreNoTokenAreExplained(t *testing.T) {
	for name, x := range map[string]struct {
		answer func(http.ResponseWriter)
		reason string
	}{
		"text":          {answer(200, "hello"), "no token response"},
		"no token":      {answer(200, `{"token_type":"Bearer","expires_in":1}`), "no access_token"},
		"another type":  {answer(200, `{"access_token":"a","token_type":"mac","expires_in":1}`), `"mac"`},
		"no type":       {answer(200, `{"access_token":"a","expires_in":1}`), `""`},
		"no life":       {answer(200, `{"access_token":"a","token_type":"bearer"}`), "no expires_in"},
		"negative life": {answer(200, `{"access_token":"a","token_type":"bearer","expires_in":-1}`), "no expires_in"},
		"too long":      {answer(200, strings.Repeat(" ", 1<<20)), "no token response"},
		"not found":     {answer(404, "<html>"), "Not Found: the answer is no OAuth2 error"},
		"redirect":      {answer(307, "", "Location", "http://elsewhere.example/"), "307"},
		"a bare string": {answer(401, `"invalid access or signature"`), http.StatusText(http.StatusUnauthorized) + ": the answer is no OAuth2 error"},
		"no content":    {answer(204, ""), "204"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &service{answers: []func(http.ResponseWriter){x.answer}}
			_, err := s.source(t).Token(t.Context())
			require.ErrorContains(t, err, x.reason)
			require.ErrorContains(t, err, "POST https://mep.example:8443/oauth2/token")
			require.NotContains(t, err.Error(), secretKey)
			require.Len(t, s.asked, 1)
		})
	}
}

func TestAVeryLongLifeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){token("a", 1<<62), token("b", 1)}}
		source := s.source(t)
		requireToken(t, "a", source)
		requireToken(t, "a", source)
		time.Sleep(366 * 24 * time.Hour)
		requireToken(t, "b", source)
	})
}

func TestATokenThatEndedOnItsWayIsHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answers: []func(http.ResponseWriter){token("a", 1), token("b", 1)}, delay: 2 * time.Second}
		source := s.source(t)
		requireToken(t, "a", source) // the service knows better how long it is valid
		requireToken(t, "b", source)
	})
}

func TestAPanicOfTheHTTPClientLeavesNobodyWaiting(t *testing.T) {
	s := &service{answers: []func(http.ResponseWriter){func(http.ResponseWriter) { panic("oops") }, token("a", 100)}}
	source := s.source(t)
	require.Panics(t, func() { _, _ = source.Token(t.Context()) })
	requireToken(t, "a", source)
}

func TestNewSourceRefusesWhatCannotWork(t *testing.T) {
	good := auth.Config{URL: "https://mep.example", AccessKeyID: accessKey, SecretKey: secretKey}
	_, err := auth.NewSource(good)
	require.NoError(t, err)
	for name, x := range map[string]struct {
		change func(*auth.Config)
		reason string
	}{
		"no URL":         {func(c *auth.Config) { c.URL = "" }, "absolute"},
		"relative URL":   {func(c *auth.Config) { c.URL = "/oauth2" }, "absolute"},
		"no URL at all":  {func(c *auth.Config) { c.URL = "http://[" }, "absolute"},
		"another scheme": {func(c *auth.Config) { c.URL = "ftp://mep.example" }, "absolute"},
		"query":          {func(c *auth.Config) { c.URL += "?a=b" }, "without user, query"},
		"user":           {func(c *auth.Config) { c.URL = "https://u:hunter2@mep.example" }, "without user, query"},
		"fragment":       {func(c *auth.Config) { c.URL += "#a" }, "without user, query"},
		"no access key":  {func(c *auth.Config) { c.AccessKeyID = "" }, "accessKeyId"},
		"bad access key": {func(c *auth.Config) { c.AccessKeyID = accessKey + "x" }, "accessKeyId"},
		"no secret":      {func(c *auth.Config) { c.SecretKey = "" }, "secretKey"},
		"bad secret":     {func(c *auth.Config) { c.SecretKey = "hunter2" }, "secretKey"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			x.change(&cfg)
			_, err := auth.NewSource(cfg)
			require.ErrorContains(t, err, x.reason)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestTheHTTPClientStaysAsItIs(t *testing.T) {
	h := &http.Client{Transport: &service{answers: []func(http.ResponseWriter){token("a", 100)}}}
	_, err := auth.NewSource(auth.Config{URL: "https://mep.example", AccessKeyID: accessKey, SecretKey: secretKey, HTTPClient: h})
	require.NoError(t, err)
	require.Nil(t, h.CheckRedirect)
}

func TestASourceIsATokenSourceOfTheClient(t *testing.T) {
	s := &service{answers: []func(http.ResponseWriter){token("a", 100)}}
	mp1 := &service{answers: []func(http.ResponseWriter){answer(200, "[]")}}
	c, err := client.New("http://mep.example", client.WithTokenSource(s.source(t).Token),
		client.WithHTTPClient(&http.Client{Transport: mp1}))
	require.NoError(t, err)
	_, err = c.Transports(t.Context())
	require.NoError(t, err)
	require.Equal(t, "Bearer a", mp1.asked[0].Header.Get("Authorization"))
}
