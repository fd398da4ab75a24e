package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/openmep/mep/kit/netguard"
)

// maxTunnelHeader bounds the response of a proxy to CONNECT, in bytes.
const maxTunnelHeader = 16 << 10

// connector makes connections to targets, directly or through a proxy. Its dial methods return *connectError.
type connector struct {
	guard         func() *netguard.Policy
	timeout       time.Duration // for a connection including proxy and TLS handshakes; 0: none
	proxy         *url.URL      // nil: none
	tls, proxyTLS *tls.Config
	serverName    string
	open          *connections
}

func (c *connector) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// dial makes a connection without TLS.
func (c *connector) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	conn, err := c.raw(ctx, network, addr)
	if err != nil {
		return nil, &connectError{err}
	}
	return conn, nil
}

// dialTLS returns a dialler for TLS connections that offer the protocols.
func (c *connector) dialTLS(protocols ...string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := c.bounded(ctx)
		defer cancel()
		conn, err := c.raw(ctx, network, addr)
		if err != nil {
			return nil, &connectError{err}
		}
		name := c.serverName
		if name == "" {
			name, _, _ = net.SplitHostPort(addr) // transports pass host:port
		}
		secured, err := handshake(ctx, conn, c.tls, name, protocols)
		if err != nil {
			return nil, &connectError{err}
		}
		return secured, nil
	}
}

// dialProxyOnly connects to the proxy. The guard does not apply, because the operator chose the proxy.
func (c *connector) dialProxyOnly(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	conn, err := netguard.Dialer(nil, 0).DialContext(ctx, network, addr)
	if err != nil {
		return nil, &connectError{err}
	}
	return conn, nil
}

// raw makes a connection to the target or, if there is a proxy, a tunnel to it. The guard only checks the targets of direct
// connections. Those behind a proxy are checked earlier, in Endpoint.deliver.
func (c *connector) raw(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.proxy == nil {
		conn, err := c.guarded(ctx, network, addr)
		if err != nil {
			return nil, err // not a nil *connection in a net.Conn
		}
		return conn, nil
	}
	return c.tunnel(ctx, network, addr)
}

// guarded makes a connection to the target, which the guard must allow, and registers it for later checks.
func (c *connector) guarded(ctx context.Context, network, addr string) (*connection, error) {
	conn, err := netguard.Dialer(c.guard, 0).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		_ = conn.Close()
		return nil, net.UnknownNetworkError(network)
	}
	return c.open.add(tcp, c.guard)
}

// dialDirect makes a connection without TLS or proxy.
func (c *connector) dialDirect(ctx context.Context, addr string) (*connection, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	conn, err := c.guarded(ctx, "tcp", addr)
	if err != nil {
		return nil, &connectError{err}
	}
	return conn, nil
}

func handshake(ctx context.Context, conn net.Conn, cfg *tls.Config, name string, protocols []string) (*tls.Conn, error) {
	cfg = cfg.Clone()
	cfg.ServerName, cfg.NextProtos = name, protocols
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

// tunnel asks the proxy for a connection to the target (RFC 9110 9.3.6).
func (c *connector) tunnel(ctx context.Context, network, addr string) (net.Conn, error) {
	port, err := netguard.PortOf(c.proxy)
	if err != nil {
		return nil, err
	}
	at := net.JoinHostPort(c.proxy.Hostname(), strconv.Itoa(int(port)))
	conn, err := netguard.Dialer(nil, 0).DialContext(ctx, network, at)
	if err == nil && c.proxy.Scheme == "https" {
		conn, err = handshake(ctx, conn, c.proxyTLS, c.proxy.Hostname(), []string{"http/1.1"})
	}
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	// The end of the context also interrupts a proxy that sends nothing.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = askForTunnel(conn, c.proxy, addr)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return conn, nil
}

func askForTunnel(conn net.Conn, proxy *url.URL, addr string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: make(http.Header)}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	// Read one byte at a time: what follows the header belongs to the target.
	r := bufio.NewReaderSize(&oneByte{r: &io.LimitedReader{R: conn, N: maxTunnelHeader}}, 16)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // a 2xx response to CONNECT has no body
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("it refused the tunnel with %d", resp.StatusCode)
	}
	if r.Buffered() > 0 {
		return errors.New("it sent more than a header")
	}
	return nil
}

type oneByte struct{ r io.Reader }

func (o *oneByte) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return o.r.Read(p[:1])
}
