package gateway_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/websocket"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
)

// echo answers every message of a WebSocket with itself.
var echo = websocket.Server{
	Handshake: func(c *websocket.Config, _ *http.Request) error {
		c.Protocol = []string{"chat"}
		return nil
	},
	Handler: func(c *websocket.Conn) {
		for {
			var text string
			if websocket.Message.Receive(c, &text) != nil {
				return
			}
			if text == "bye" {
				_ = c.WriteClose(4001)
				return
			}
			if websocket.Message.Send(c, text) != nil {
				return
			}
		}
	},
}

// trust makes a client trust the platform's own CA.
func (g *gate) trust() *tls.Config {
	g.Helper()
	pem, err := os.ReadFile(filepath.Join(g.cfg.Common.PKIDir(), "ca.crt"))
	require.NoError(g, err)
	pool := x509.NewCertPool()
	require.True(g, pool.AppendCertsFromPEM(pem))
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func encrypted(s *setup) { s.Encrypted = true }

func TestWebSockets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	caller := "Bearer " + w.token(w.app())
	bare, secure := serve(t, echo.ServeHTTP), serveTLS(t, echo.ServeHTTP)
	w.named("bare", strings.Replace(bare.URL, "http", "ws", 1))
	w.named("secure", strings.Replace(secure.URL, "https", "wss", 1))
	w.policy("secure", api.Policy{Upstream: api.Upstream{CA: caOf(secure)}})
	for _, c := range []struct {
		name    string
		gate    *gate
		service string
	}{
		{"ws to ws", w.gate(), "bare"}, {"ws to wss", w.gate(), "secure"}, {"wss to ws", w.gate(encrypted), "bare"}, {"wss to wss", w.gate(encrypted), "secure"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := url.Parse(c.gate.URL() + "/services/" + c.service + "/")
			require.NoError(t, err)
			open := func(proof string) (*websocket.Conn, error) {
				cfg := &websocket.Config{Location: u, Origin: u, Version: websocket.ProtocolVersionHybi13, Protocol: []string{"chat"}, Header: http.Header{}}
				if proof != "" {
					cfg.Header.Set("Authorization", proof)
				}
				var conn net.Conn
				var err error
				if c.gate.cfg.Encrypted {
					conn, err = tls.Dial("tcp", u.Host, c.gate.trust())
				} else {
					conn, err = net.Dial("tcp", u.Host)
				}
				require.NoError(t, err)
				t.Cleanup(func() { _ = conn.Close() })
				require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
				return websocket.NewClient(cfg, conn)
			}
			conn, err := open(caller)
			require.NoError(t, err)
			for _, text := range []string{"a", strings.Repeat("b", 30000)} {
				require.NoError(t, websocket.Message.Send(conn, text))
				var got string
				require.NoError(t, websocket.Message.Receive(conn, &got))
				require.Equal(t, text, got)
			}
			require.NoError(t, websocket.Message.Send(conn, "bye"))
			var got string
			require.ErrorIs(t, websocket.Message.Receive(conn, &got), io.EOF, "the close frame comes through")
			_, err = open("")
			require.ErrorIs(t, err, websocket.ErrBadStatus, "who may not call gets no connection")
		})
	}
}

const handshake = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"

// TestHandshakesThatFail lets upstreams answer a handshake with something other than a WebSocket, after which the next bytes of the client
// are an ordinary request.
func TestHandshakesThatFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	for name, c := range map[string]struct {
		response string
		status   int
	}{
		"200":                       {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", 200},
		"200 that claims to switch": {"HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno", 200},
		"426":                       {"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n", 426},
		"101 to h2c":                {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 502},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			service := strings.ReplaceAll(name, " ", "-")
			w.named(service, acceptor(t, func(conn net.Conn) {
				in := bufio.NewReader(conn)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if strings.Contains(r.RequestURI, "smuggled") {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled")
						return
					}
					_, _ = io.WriteString(conn, c.response)
				}
			}))
			w.policy(service, anybody)
			l := g.dial()
			l.send("GET /services/" + service + "/ HTTP/1.1\nHost: a\n" + handshake + "\nGET /smuggled HTTP/1.1\nHost: a\n\n")
			a := l.answer()
			require.Equal(t, c.status, a.StatusCode, a.body)
			a, err := l.response(http.MethodGet)
			if err == nil {
				require.Equal(t, http.StatusNotFound, a.StatusCode, "the gateway answers it")
			}
		})
	}
}

// TestNoTunnelsToOtherProtocols asks for upgrades that would let later requests bypass the gateway.
func TestNoTunnelsToOtherProtocols(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	var tunnels atomic.Int64
	w.named("hello", acceptor(t, func(conn net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		if up := r.Header.Get("Upgrade"); up != "" {
			tunnels.Add(1)
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+up+"\r\n\r\n")
			_, _ = io.Copy(conn, conn)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
	}))
	w.policy("hello", anybody)
	for _, upgrade := range []string{
		"Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\n", "Connection: Upgrade\nUpgrade: h2c\n",
		"Connection: Upgrade\nUpgrade: H2C\n", "Connection: Upgrade\nUpgrade: websocket, h2c\n", "Connection: Upgrade\nUpgrade: h2c\nUpgrade: websocket\n",
		"Connection: Upgrade\nUpgrade: websocket\nUpgrade: h2c\n", "Connection: Upgrade\nUpgrade: TLS/1.0\n", "Connection: Upgrade\nUpgrade: HTTP/2.0\n",
	} {
		l := g.dial()
		l.send("GET /services/hello/ HTTP/1.1\nHost: a\n" + upgrade + "\n")
		a := l.answer()
		require.NotEqual(t, http.StatusSwitchingProtocols, a.StatusCode, upgrade)
	}
	require.Zero(t, tunnels.Load(), "no upstream was asked for what the gateway could not see into")
	l := g.dial()
	l.send("GET /services/hello/ HTTP/1.1\nHost: a\n" + handshake + "\n")
	resp, err := http.ReadResponse(l.in, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode, "WebSockets are let through")
}

// TestSilentWebSocketsEnd checks that connections that are silent for too long are closed.
func TestSilentWebSocketsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", serve(t, echo.ServeHTTP).URL)
	p := anybody
	p.Timeouts.Idle = "100ms"
	w.policy("hello", p)
	l := g.dial()
	l.send("GET /services/hello/ HTTP/1.1\nHost: a\n" + handshake + "\n")
	resp, err := http.ReadResponse(l.in, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	_, err = l.in.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	eventually(t, func() bool { return g.Open() == 0 })
}

// local restricts a service to local consumers.
func local(s *mp1.ServiceInfo) { s.ConsumedLocalOnly = nil }
