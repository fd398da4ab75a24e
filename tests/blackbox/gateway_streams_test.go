package blackbox

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// echoUpgraded takes an upgrade to a protocol, and then sends back what it gets.
func echoUpgraded(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nX-Caller: %s\r\n\r\n", r.Header.Get("X-AppInstanceID"))
		_, _ = io.Copy(conn, buffered)
	}
}

// upgrade asks for a WebSocket and returns the connection, what comes over it after the header of the answer, and that header.
func upgrade(t *testing.T, p *harness.Process, path, header string) (conn net.Conn, r *bufio.Reader, status int, h http.Header) {
	t.Helper()
	conn = p.Dial(t, "gateway")
	require.NoError(t, conn.SetDeadline(time.Now().Add(harness.Patience)))
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n", path, header)
	require.NoError(t, err)
	r = bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: "GET"})
	require.NoError(t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		require.NoError(t, resp.Body.Close())
	}
	return conn, r, resp.StatusCode, resp.Header
}

func TestWebSocketsPassTheGateway(t *testing.T) {
	t.Parallel()
	p, _ := offering(t, echoUpgraded(t))
	m := p.GatewayManagement(t)
	id, key := apiKey(m, "c", nil)
	conn, r, status, header := upgrade(t, p, "/services/hello/ws", "X-Api-Key: "+key+"\r\n")
	require.Equal(t, 101, status)
	require.Equal(t, "c", header.Get("X-Caller"))
	for i := range 100 {
		_, err := fmt.Fprintf(conn, "message %d\n", i)
		require.NoError(t, err)
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("message %d\n", i), line)
	}
	sent := make([]byte, 2<<20)
	_, err := rand.Read(sent)
	require.NoError(t, err)
	go func() { _, _ = conn.Write(sent) }()
	got := make([]byte, len(sent))
	_, err = io.ReadFull(r, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))

	_, _, status, _ = upgrade(t, p, "/services/hello/ws", "X-Api-Key: "+key+"0\r\n")
	require.Equal(t, 401, status)
	_, _, status, _ = upgrade(t, p, "/services/nothing/ws", "")
	require.Equal(t, 404, status)
	require.Equal(t, 426, p.Gateway(t).Get("/services/hello/ws").Status)

	// A reload leaves it alone; the end of its key does not, and that of the process does not either.
	_, other := apiKey(m, "c", nil)
	_, last, status, _ := upgrade(t, p, "/services/hello/ws", "X-Api-Key: "+other+"\r\n")
	require.Equal(t, 101, status)
	p.Hangup()
	_, err = io.WriteString(conn, "still\n")
	require.NoError(t, err)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "still\n", line)
	m.Delete(gatewayRoot + "/api_keys/" + id).Is(204)
	_, err = io.Copy(io.Discard, r)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is ended")
	wait := p.Terminate()
	_, err = io.Copy(io.Discard, last)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is ended")
	require.Less(t, wait(), harness.StopWithin)
	require.NotEmpty(t, p.AccessRecords(t, 1, func(r object) bool { return fmt.Sprint(r["status"]) == "101" }))
}

func TestEventsAreSentAtOnce(t *testing.T) {
	t.Parallel()
	next, gone := make(chan struct{}), make(chan struct{})
	p, _ := offering(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				close(gone)
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", p.URL("gateway")+"/services/hello/events", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range 3 {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("data: %d\n", i), line)
		_, err = lines.ReadString('\n')
		require.NoError(t, err)
		next <- struct{}{} // the next one comes when this one was read only
	}
	cancel()
	select {
	case <-gone: // the producer learns that nobody listens
	case <-time.After(harness.Patience):
		t.Fatal("the producer does not learn that the consumer went away")
	}
}

// grpcFrame is a message as gRPC frames it.
func grpcFrame(text string) []byte { return append([]byte{0, 0, 0, 0, byte(len(text))}, text...) }

func TestGRPCPassesTheGateway(t *testing.T) {
	t.Parallel()
	producer := harness.NewHTTP2Producer(t, "hello", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("X-Proto", r.Proto)
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/test.Echo/Fail" || r.Header.Get("Te") != "trailers" {
			w.Header().Set("Grpc-Status", "5")
			w.Header().Set("Grpc-Message", "te: "+r.Header.Get("Te"))
			return
		}
		var head [5]byte
		for { // both ways at once
			if _, err := io.ReadFull(r.Body, head[:]); err != nil {
				break
			}
			text := make([]byte, head[4])
			if _, err := io.ReadFull(r.Body, text); err != nil {
				break
			}
			_, _ = w.Write(grpcFrame(strings.ToUpper(string(text))))
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
	})
	for name, secure := range map[string]bool{"without TLS": false, "with TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := []harness.Option{toLoopback()}
			if secure {
				options = append(options, harness.Secure())
			}
			p := harness.Start(t, options...)
			transport := &http.Transport{Protocols: new(http.Protocols)}
			defer transport.CloseIdleConnections()
			token := ""
			var a app
			if secure {
				var keys harness.Keys
				a, keys = appOf(t, p)
				token = keys.Fetch(p.Auth(t)).AccessToken
				settings, err := p.TLS()
				require.NoError(t, err)
				transport.TLSClientConfig = settings
				transport.Protocols.SetHTTP2(true)
			} else {
				a = newApp(p.Client(t))
				transport.Protocols.SetUnencryptedHTTP2(true)
			}
			info := served("hello", producer.URL)
			a.register(but(info, "transportInfo", but(info["transportInfo"].(object), "type", "RPC", "protocol", "GRPC")))
			call := func(method string, body io.Reader) *http.Response {
				ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
				t.Cleanup(cancel)
				r, err := http.NewRequestWithContext(ctx, "POST", p.URL("gateway")+"/services/hello/test.Echo/"+method, body)
				require.NoError(t, err)
				r.Header.Set("Content-Type", "application/grpc")
				r.Header.Set("TE", "trailers")
				if token != "" {
					r.Header.Set("Authorization", "Bearer "+token)
				}
				resp, err := transport.RoundTrip(r)
				require.NoError(t, err)
				return resp
			}
			harness.Eventually(t, "the gateway knows the service", func() error {
				resp := call("Fail", nil)
				defer resp.Body.Close()
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					return err
				}
				return harness.Not(resp.Trailer.Get("Grpc-Status") == "5", "%d %v", resp.StatusCode, resp.Trailer)
			})
			reader, writer := io.Pipe()
			resp := call("Stream", reader)
			defer resp.Body.Close()
			require.Equal(t, "HTTP/2.0", resp.Proto)
			require.Equal(t, "HTTP/2.0", resp.Header.Get("X-Proto"))
			for _, text := range []string{"one", "two", "three"} {
				_, err := writer.Write(grpcFrame(text))
				require.NoError(t, err)
				got := make([]byte, 5+len(text))
				_, err = io.ReadFull(resp.Body, got)
				require.NoError(t, err)
				require.Equal(t, strings.ToUpper(text), string(got[5:]))
			}
			require.NoError(t, writer.Close())
			_, err := io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			require.Equal(t, "0", resp.Trailer.Get("Grpc-Status"))
		})
	}
}

func TestLargeBodiesAreStreamed(t *testing.T) {
	t.Parallel()
	const size = 96 << 20
	p, _ := offering(t, func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			return
		}
		w.Header().Set("X-Sum", hex.EncodeToString(sum.Sum(nil)))
		block := make([]byte, 1<<20)
		for n > 0 {
			_, _ = w.Write(block[:min(n, int64(len(block)))])
			n -= int64(len(block))
		}
	}, harness.Args("--gateway-max-body=-1"))
	sum := sha256.New()
	r, err := http.NewRequestWithContext(t.Context(), "PUT", p.URL("gateway")+"/services/hello/", io.TeeReader(io.LimitReader(zeros{}, size), sum))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	require.Equal(t, hex.EncodeToString(sum.Sum(nil)), resp.Header.Get("X-Sum"))
	require.Less(t, p.PeakMemory(), int64(400<<20))
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestUpstreamsThatMisbehave(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	p, producer := offering(t, func(w http.ResponseWriter, r *http.Request) {
		raw := func(text string) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, text)
				_ = conn.Close()
			}
		}
		switch r.URL.Path {
		case "/reset":
			raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin")
		case "/nothing":
			raw("")
		case "/garbage":
			raw("SSH-2.0-OpenSSH\r\n\r\n")
		case "/twice":
			raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde")
		case "/identity":
			raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\nX-Request-Id: forged\r\n\r\n")
		case "/header":
			raw("HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("a", 4<<20) + "\r\n\r\n")
		case "/never":
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	})
	c := p.Gateway(t)
	_, err := c.Try("GET", "/services/hello/reset", nil)
	require.Error(t, err, "the client must be able to tell that something is missing")
	for _, path := range []string{"/nothing", "/garbage", "/twice", "/header"} {
		answer := c.Post("/services/hello"+path, "x")
		require.NotContains(t, answer.Problem(502).Detail, producer.Listener.Addr().String(), "where producers are is nobody's business")
	}
	answer := c.Get("/services/hello/identity").Is(200)
	require.NotContains(t, answer.Header.Values("X-Request-Id"), "forged")
	policy(p.GatewayManagement(t), "hello", object{"timeouts": object{"response": "100ms"}, "upstream": object{"ejectAfter": -1}})
	c.Get("/services/hello/never").Problem(504)
	policy(p.GatewayManagement(t), "hello", object{"timeouts": object{"total": "100ms"}, "upstream": object{"ejectAfter": -1}})
	c.Get("/services/hello/never").Problem(504)
	producer.CloseClientConnections()
	producer.Listener.Close()
	c.Get("/services/hello/ok").Problem(502)
}
