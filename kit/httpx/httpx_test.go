package httpx_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
)

type body struct {
	Name string `json:"name"`
}

func (b *body) Check(p *problem.InvalidParams) {
	if b.Name == "" {
		p.Add("name", "is required")
	}
}

func router(log io.Writer) *gin.Engine {
	logger := slog.New(slog.NewJSONHandler(log, nil))
	limits := httpx.Limits{Body: 64, URI: 200}.WithDefaults()
	r := httpx.NewRouter("test", logger, httpx.NewMetrics(prometheus.NewRegistry()), func() httpx.Limits { return limits })
	r.GET("/panic", func(*gin.Context) { panic("secret reason") })
	r.GET("/internal", httpx.Handle(func(*gin.Context) error { return errors.New("secret reason") }))
	r.GET("/kind/:n", httpx.Handle(func(c *gin.Context) error {
		for k := errs.Internal; k <= errs.InsufficientStorage; k++ {
			if fmt.Sprint(int(k)) == c.Param("n") {
				return fmt.Errorf("wrapped: %w", errs.New(k, "the detail").After(1500*time.Millisecond))
			}
		}
		return nil
	}))
	r.POST("/body", httpx.Handle(func(c *gin.Context) error {
		var b body
		if err := httpx.Body(c, &b, "application/merge-patch+json"); err != nil {
			return err
		}
		return httpx.JSON(c, http.StatusCreated, b)
	}))
	r.GET("/tag", httpx.Handle(func(c *gin.Context) error {
		if err := httpx.IfMatch(c, `"a"`); err != nil {
			return err
		}
		if httpx.NotModified(c, `"a"`) {
			return nil
		}
		httpx.SetETag(c, `"a"`)
		return httpx.JSON(c, http.StatusOK, 1)
	}))
	return r
}

func do(t *testing.T, h http.Handler, method, target, payload string, headers ...string) (*httptest.ResponseRecorder, problem.Details) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(payload))
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	var d problem.Details
	if rec.Header().Get("Content-Type") == problem.ContentType {
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &d))
		require.Equal(t, rec.Code, d.Status, "status in the body is that of the answer")
		require.NotEmpty(t, d.Detail)
	}
	return rec, d
}

func TestEveryKindIsAProblemDocumentOfItsStatus(t *testing.T) {
	r := router(io.Discard)
	for k := errs.Internal; k <= errs.InsufficientStorage; k++ {
		rec, d := do(t, r, http.MethodGet, fmt.Sprintf("/kind/%d", k), "")
		require.Equal(t, k.Status(), rec.Code)
		require.Equal(t, k.Title(), d.Title)
		if k != errs.Internal {
			require.Equal(t, "the detail", d.Detail)
		}
		require.Equal(t, "2", rec.Header().Get("Retry-After"))
	}
}

func TestInternalErrorsShowARequestIDAndNothingElse(t *testing.T) {
	for _, path := range []string{"/internal", "/panic"} {
		var log strings.Builder
		rec, d := do(t, router(&log), http.MethodGet, path, "")
		require.Equal(t, http.StatusInternalServerError, rec.Code)
		require.NotContains(t, rec.Body.String(), "secret")
		require.Contains(t, d.Detail, d.Instance)
		require.Equal(t, rec.Header().Get(httpx.RequestIDHeader), d.Instance)
		require.Contains(t, log.String(), "secret reason")
		require.Contains(t, log.String(), d.Instance)
	}
}

func TestRequestIDOfTheClientIsKeptWhenItIsHarmless(t *testing.T) {
	r := router(io.Discard)
	rec, _ := do(t, r, http.MethodGet, "/tag", "", httpx.RequestIDHeader, "abc-1.2_3")
	require.Equal(t, "abc-1.2_3", rec.Header().Get(httpx.RequestIDHeader))
	for _, bad := range []string{"", "a b", "a\"b", strings.Repeat("a", 65), "ü"} {
		rec, _ := do(t, r, http.MethodGet, "/tag", "", httpx.RequestIDHeader, bad)
		require.NotEqual(t, bad, rec.Header().Get(httpx.RequestIDHeader))
		require.NotEmpty(t, rec.Header().Get(httpx.RequestIDHeader))
	}
}

func TestEachRequestIsOneLineInTheLog(t *testing.T) {
	var log strings.Builder
	do(t, router(&log), http.MethodGet, "/tag?secret=1", "", "Authorization", "Bearer secret")
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.NotContains(t, log.String(), "secret", "neither query nor credentials are logged")
	require.Contains(t, log.String(), `"status":200`)
}

func TestBoundsAndUnknownThings(t *testing.T) {
	r := router(io.Discard)
	for name, c := range map[string]struct {
		method, target, payload string
		headers                 []string
		status                  int
	}{
		"unknown path":         {method: "GET", target: "/nowhere", status: 404},
		"unknown method":       {method: "DELETE", target: "/tag", status: 405},
		"trailing slash":       {method: "GET", target: "/tag/", status: 404},
		"long target":          {method: "GET", target: "/tag?" + strings.Repeat("a", 300), status: 414},
		"large body":           {method: "POST", target: "/body", payload: strings.Repeat("a", 65), status: 413},
		"form body":            {method: "POST", target: "/body", payload: "a=b", headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, status: 415},
		"malformed type":       {method: "POST", target: "/body", payload: "{}", headers: []string{"Content-Type", ";"}, status: 415},
		"missing type":         {method: "POST", target: "/body", payload: `{"name":"x"}`, status: 201},
		"type with parameters": {method: "POST", target: "/body", payload: `{"name":"x"}`, headers: []string{"Content-Type", "application/json; charset=utf-8"}, status: 201},
		"further type":         {method: "POST", target: "/body", payload: `{"name":"x"}`, headers: []string{"Content-Type", "application/merge-patch+json"}, status: 201},
		"no JSON":              {method: "POST", target: "/body", payload: `{`, status: 400},
		"fails its check":      {method: "POST", target: "/body", payload: `{}`, status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			rec, d := do(t, r, c.method, c.target, c.payload, c.headers...)
			require.Equal(t, c.status, rec.Code, rec.Body.String())
			if c.status >= 400 {
				require.Equal(t, c.status, d.Status)
			}
			if c.status == 405 {
				require.Equal(t, "GET", rec.Header().Get("Allow"))
			}
		})
	}
}

// chunked hides the length of a body.
type chunked struct{ io.Reader }

func TestBodyOfUnknownLengthIsBoundedToo(t *testing.T) {
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/body", chunked{strings.NewReader(strings.Repeat("a", 1000))})
	req.ContentLength = -1
	rec := httptest.NewRecorder()
	router(io.Discard).ServeHTTP(rec, req)
	require.Equal(t, http.StatusRequestEntityTooLarge, rec.Code)
}

func TestPreconditions(t *testing.T) {
	r := router(io.Discard)
	for _, c := range []struct {
		header, value string
		status        int
	}{
		{"If-Match", `"a"`, 200},
		{"If-Match", `"b", "a"`, 200},
		{"If-Match", `*`, 200},
		{"If-Match", `"b"`, 412},
		{"If-Match", `W/"a"`, 412},
		{"If-Match", `a`, 412},
		{"If-Match", ``, 412},
		{"If-None-Match", `"a"`, 304},
		{"If-None-Match", `W/"a"`, 304},
		{"If-None-Match", `*`, 304},
		{"If-None-Match", `"b"`, 200},
	} {
		rec, _ := do(t, r, http.MethodGet, "/tag", "", c.header, c.value)
		require.Equal(t, c.status, rec.Code, "%s: %s", c.header, c.value)
		if c.status == 304 {
			require.Equal(t, `"a"`, rec.Header().Get("ETag"))
		}
	}
}

func TestServerDrainsAndStops(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	srv, err := httpx.Listen("test", "127.0.0.1:0", h, httpx.Limits{}, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx, func() time.Duration { return 5 * time.Second }) }()
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get(srv.URL())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-entered
	cancel()
	close(release)
	require.Equal(t, "done", <-answer, "a request under way is finished")
	require.NoError(t, <-ended)
}

func TestListenSaysWhichListenerFailed(t *testing.T) {
	srv, err := httpx.Listen("one", "127.0.0.1:0", nil, httpx.Limits{}, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer srv.Close()
	_, err = httpx.Listen("two", srv.Addr().String(), nil, httpx.Limits{}, nil, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "listener two")
}
