package upstream

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestABodyThatIsNotReadToItsEndClosesTheConnection(t *testing.T) {
	k := says(t, okay, true)
	w := newWorld(t, Config{})
	p, eps, d := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, k.url)
	for range 2 {
		resp, err := w.RoundTrip(request(t, http.MethodGet, "/", nil), p, eps, new(Attempt))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.NoError(t, resp.Body.Close(), "also twice")
		_, err = resp.Body.Read(make([]byte, 1))
		require.ErrorIs(t, err, http.ErrBodyReadAfterClose)
		<-k.ended
		require.Zero(t, d.waiting(eps[0].target.address))
	}
	resp, err := w.RoundTrip(request(t, http.MethodGet, "/", nil), p, eps, new(Attempt))
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 1, d.waiting(eps[0].target.address), "it is given back with the end of the body")
	_, err = resp.Body.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 1, d.waiting(eps[0].target.address), "once")
	require.EqualValues(t, 3, k.connections.Load())
}

// crowd has n calls in flight at the same time, then ends them all.
func crowd(t *testing.T, w *world, p *Profile, eps []*Endpoint, n int) {
	t.Helper()
	var open []*http.Response
	for range n {
		resp, err := w.RoundTrip(request(t, http.MethodGet, "/", nil), p, eps, new(Attempt)) //nolint:bodyclose // below
		require.NoError(t, err)
		open = append(open, resp) //nolint:bodyclose // below
	}
	for _, resp := range open {
		_, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
}

func TestSoManyConnectionsAreKept(t *testing.T) {
	k := says(t, okay, true)
	w := newWorld(t, Config{MaxIdlePerHost: 2})
	p, eps, d := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, k.url)
	crowd(t, w, p, eps, 5)
	require.Equal(t, 2, d.waiting(eps[0].target.address))
	for range 3 {
		<-k.ended
	}
	crowd(t, w, p, eps, 2)
	require.EqualValues(t, 5, k.connections.Load())

	d.mu.Lock()
	require.Equal(t, 2, d.count)
	d.count = maxIdleTotal // as if there were this many to other addresses
	d.mu.Unlock()
	crowd(t, w, p, eps, 1)
	require.Equal(t, 2, d.waiting(eps[0].target.address), "there is room for one that was taken")
	crowd(t, w, p, eps, 3)
	require.Equal(t, 2, d.waiting(eps[0].target.address))
}

func TestConnectionsThatAreIdleForLongAreClosed(t *testing.T) {
	k := says(t, okay, true)
	w := idle(t, nil) // no other goroutine sweeps
	p, eps, d := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, k.url)
	addr := eps[0].target.address
	crowd(t, w, p, eps, 3)
	d.mu.Lock()
	d.idle[addr][0].used = time.Now().Add(-idleFor)
	d.mu.Unlock()
	w.sweep(time.Now())
	<-k.ended
	require.Equal(t, 2, d.waiting(addr), "the others are not so old")
	require.Equal(t, 2, d.count)

	d.mu.Lock()
	d.idle[addr][1].used = time.Now().Add(-idleFor)
	d.mu.Unlock()
	crowd(t, w, p, eps, 1)
	<-k.ended
	require.Equal(t, 1, d.waiting(addr), "nor is one used that is too old before it is swept")
	require.EqualValues(t, 3, k.connections.Load())

	w.sweep(time.Now().Add(idleFor))
	<-k.ended
	require.Empty(t, d.idle)
	require.Zero(t, d.count)
}

func TestRetiredConnectionsAreClosed(t *testing.T) {
	half := make(chan struct{})
	k := talk(t, func(c net.Conn, r *http.Request) bool {
		if r.URL.Path != "/slow" {
			_, _ = io.WriteString(c, okay)
			return true
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
		<-half
		_, _ = io.WriteString(c, "ok")
		return true
	})
	w := newWorld(t, Config{})
	p, eps, d := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, k.url)
	resp, err := w.RoundTrip(request(t, http.MethodGet, "/slow", nil), p, eps, new(Attempt))
	require.NoError(t, err)
	w.get(p, eps, "/")
	w.reload(Config{MaxIdlePerHost: 3})
	<-k.ended // the idle connection
	require.NotSame(t, d, eps[0].lanes.Load().direct)
	close(half)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "okok", string(body), "a call under way goes on")
	require.NoError(t, resp.Body.Close())
	<-k.ended // the connection of the call is not kept
	require.Equal(t, "ok", w.get(p, eps, "/").body)
	require.EqualValues(t, 3, k.connections.Load())
}

// TestManyCallsAtOnce mixes successful calls, cancelled calls and reloads.
func TestManyCallsAtOnce(t *testing.T) {
	k := talk(t, func(c net.Conn, r *http.Request) bool {
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"+r.URL.Query().Get("n")+"\n")
		return err == nil && rand.IntN(20) != 0 // some connections are closed after a response
	})
	w := newWorld(t, Config{})
	p, eps, _ := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, k.url)
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 200 {
				n := "123456789"[:9]
				ctx, cancel := context.WithCancel(t.Context())
				r := request(t, http.MethodGet, "/?n="+n, nil).WithContext(ctx)
				switch rand.IntN(4) {
				case 0:
					go cancel()
				case 1:
					r.Method = http.MethodOptions
				}
				resp, err := w.RoundTrip(r, p, eps, new(Attempt))
				if err == nil {
					if rand.IntN(4) != 0 {
						var body []byte
						if body, err = io.ReadAll(resp.Body); err == nil && string(body) != n+"\n" {
							t.Errorf("the response of another call: %q", body)
						}
					}
					_ = resp.Body.Close()
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	for i := range 20 {
		w.reload(Config{MaxIdlePerHost: 1 + i%5})
		time.Sleep(time.Millisecond)
	}
	callers.Wait()
	require.Zero(t, eps[0].View().Active)
}
