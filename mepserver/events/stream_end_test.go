package events

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
)

// smallBuffers keeps the kernel from buffering what a client does not read.
func smallBuffers(s *httptest.Server) {
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
		return ctx
	}
}

// deaf opens a stream over HTTP/1.1 and reads nothing from it.
func deaf(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	_, err = fmt.Fprint(conn, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	return conn
}

// flood writes events of 100 kB in each of some transactions.
func (n *node) flood(t *testing.T, transactions int) {
	t.Helper()
	for i := range transactions {
		var kvs []any
		for j := range 100 {
			kvs = append(kvs, state.AppKey(fmt.Sprint("flood", i, "-", j)), app(strings.Repeat("x", 1000)))
		}
		n.put(t, kvs...)
	}
}

func TestClientThatDoesNotReadIsDropped(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %t", h2), func(t *testing.T) {
			n := newNode(t)
			n.pace.write = 200 * time.Millisecond
			flood := 10
			n.serve(t, func(s *httptest.Server) {
				s.EnableHTTP2 = h2
				if !h2 {
					smallBuffers(s)
				}
			})
			if h2 {
				resp := n.request(t, t.Context(), http.MethodGet, "", "")
				defer resp.Body.Close()
				require.Equal(t, 2, resp.ProtoMajor)
				flood = 60 // the transport takes 4 MB for a stream
			} else {
				deaf(t, n.server.Listener.Addr().String())
			}
			require.Eventually(t, func() bool { return metric(t, n.reg, "mep_events_clients", "") > 0 }, waitTime, time.Millisecond)
			n.flood(t, flood)
			require.Eventually(t, func() bool { return metric(t, n.reg, "mep_events_dropped_total", "") > 0 }, waitTime, 10*time.Millisecond)
			require.Eventually(t, func() bool { return metric(t, n.reg, "mep_events_clients", "") == 0 }, waitTime, 10*time.Millisecond)
			require.Eventually(t, func() bool { return strings.Contains(n.log.String(), "takes the events too slowly") }, waitTime, time.Millisecond)
		})
	}
}

func TestSlowClientDelaysNobody(t *testing.T) {
	n := newNode(t)
	n.pace.write = time.Hour
	n.serve(t, smallBuffers)
	deaf(t, n.server.Listener.Addr().String())
	require.Eventually(t, func() bool { return metric(t, n.reg, "mep_events_clients", "") > 0 }, waitTime, time.Millisecond)
	other := n.follow(t, "", "")
	n.flood(t, 10)
	n.put(t, state.AppKey("end"), app("x"))
	require.Len(t, other.upTo(t, "end"), 1000)
	require.InDelta(t, 2, metric(t, n.reg, "mep_events_clients", ""), 0)
}

func TestClientThatFallsBehindMissesNothing(t *testing.T) {
	n := newNode(t)
	n.pace.behind = -1 // every batch takes too long, so the watch restarts after each
	n.serve(t, nil)
	c := n.follow(t, "", "")
	for i := range 30 {
		var kvs []any
		for j := range 100 {
			kvs = append(kvs, state.AppKey(fmt.Sprint(i, "-", j)), app(strings.Repeat("x", 50)))
		}
		n.put(t, kvs...)
	}
	n.put(t, state.AppKey("end"), app("x"))
	got := c.upTo(t, "end")
	require.Len(t, got, 3000)
	var last position
	for _, m := range got {
		p, err := parsePosition(m.id)
		require.NoError(t, err)
		require.True(t, last.before(p), "%s after %s", p, last)
		last = p
	}
}

func TestPlatformThatStopsEndsTheStreams(t *testing.T) {
	n := newNode(t)
	n.pace.write = time.Hour
	listener, err := httpx.Listen("mm5", "127.0.0.1:0", n.handler, httpx.Limits{}, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- listener.Run(ctx, func() time.Duration { return time.Hour }) }()
	go func() { done <- n.Run(ctx) }()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	n.url, n.http = listener.URL(), &http.Client{Transport: transport}
	c := n.follow(t, "", "")
	deaf(t, listener.Addr().String())
	require.Eventually(t, func() bool { return metric(t, n.reg, "mep_events_clients", "") == 2 }, waitTime, time.Millisecond)
	n.flood(t, 60) // more than the kernel buffers
	stop()
	for range 2 {
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(waitTime):
			t.Fatal("the listener waits for the streams")
		}
	}
	c.ended(t)
	require.Zero(t, metric(t, n.reg, "mep_events_clients", ""))
	require.Zero(t, metric(t, n.reg, "mep_events_dropped_total", ""), "it was not the client's fault")
	rec := httptest.NewRecorder()
	n.handler.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/events", nil))
	require.Equal(t, http.StatusServiceUnavailable, rec.Code)
	require.Equal(t, "2", rec.Header().Get("Retry-After"))
}

func TestServersTimeoutsDoNotEndTheStream(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %t", h2), func(t *testing.T) {
			n := newNode(t)
			n.pace.keepAlive = 50 * time.Millisecond
			n.serve(t, func(s *httptest.Server) {
				s.EnableHTTP2 = h2
				s.Config.ReadTimeout, s.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
			})
			c := n.follow(t, "", "")
			require.Equal(t, h2, c.resp.ProtoMajor == 2)
			for range 10 {
				receive(t, c.comments)
			}
			n.put(t, state.AppKey("a"), app("x"))
			require.Empty(t, c.upTo(t, "a"))
		})
	}
}

func TestLimitOfAWriteDoesNotEndAnIdleStream(t *testing.T) {
	n := newNode(t)
	n.pace.keepAlive, n.pace.write = 300*time.Millisecond, 30*time.Millisecond
	n.serve(t, func(s *httptest.Server) { s.EnableHTTP2 = true })
	c := n.follow(t, "", "")
	receive(t, c.comments)
	receive(t, c.comments)
	n.put(t, state.AppKey("a"), app("x"))
	require.Empty(t, c.upTo(t, "a"))
}

func TestStreamEndsWithTheToken(t *testing.T) {
	n := start(t)
	n.caller = &identity.Caller{Subject: "mepm", Expires: time.Now().Add(200 * time.Millisecond)}
	n.follow(t, "", "").ended(t)
	require.Eventually(t, func() bool { return metric(t, n.reg, "mep_events_clients", "") == 0 }, waitTime, time.Millisecond)
	require.Zero(t, metric(t, n.reg, "mep_events_dropped_total", ""))
}

func TestStreamEndsWhenWhatLetItInIsTakenBack(t *testing.T) {
	credential := func(change func(*state.Credential)) state.Credential {
		c := state.Credential{Version: state.Current(), Subject: "mepm", Scopes: []string{"mm5"}, Epoch: "1"}
		if change != nil {
			change(&c)
		}
		return c
	}
	key, token := state.CredentialKey("AK"), state.RevokedKey("token")
	for name, c := range map[string]struct {
		change []any
		ends   bool
	}{
		"credentials deleted":       {[]any{key, nil}, true},
		"credentials disabled":      {[]any{key, credential(func(c *state.Credential) { c.Disabled = true })}, true},
		"tokens so far refused":     {[]any{key, credential(func(c *state.Credential) { c.Epoch = "2" })}, true},
		"credentials given away":    {[]any{key, credential(func(c *state.Credential) { c.Subject = "other" })}, true},
		"credentials unreadable":    {[]any{key, "{"}, true},
		"token revoked":             {[]any{token, `{"v":1}`}, true},
		"credentials renamed":       {[]any{key, credential(func(c *state.Credential) { c.Name = "new" })}, false},
		"somebody else's":           {[]any{state.CredentialKey("AK2"), credential(nil)}, false},
		"another token revoked":     {[]any{state.RevokedKey("token2"), `{"v":1}`}, false},
		"old revocation forgotten":  {[]any{token, nil}, false},
		"nothing about credentials": {[]any{state.AppKey("a"), app("x")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t)
			n.put(t, key, credential(nil))
			n.caller = &identity.Caller{Subject: "mepm", ClientID: "AK", TokenID: "token"}
			s := n.follow(t, "?types=operation", "")
			n.put(t, c.change...)
			if c.ends {
				s.ended(t)
				require.Contains(t, n.log.String(), "taken back")
				require.NotContains(t, n.log.String(), "level=ERROR")
				// The revocation does not affect callers that are let in later and resume from before.
				s = n.follow(t, "?types=operation", "1-0")
			}
			n.put(t, state.OperationKey("o"), state.Operation{Version: state.Current(), Type: "START"})
			require.Equal(t, "operation", s.next(t).name)
		})
	}
}
