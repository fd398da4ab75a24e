package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"time"
)

const (
	// idleFor is how long an unused connection is kept.
	idleFor = 90 * time.Second
	// maxIdleTotal bounds the idle connections of one lane across all endpoints.
	maxIdleTotal = 16384
	// maxHeader bounds the header of a response, in bytes.
	maxHeader = 256 << 10
	// pingAfter and pingTimeout serve to detect dead HTTP/2 connections.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// continueWait is how long to wait for the target's 100 (Continue) after a request with Expect: 100-continue.
	continueWait = time.Second
	// sessions is how many TLS sessions a profile keeps for resumption.
	sessions = 64
)

// wiring holds the connections of a profile and the settings they depend on, which may change. It is guarded by Manager.mu.
type wiring struct {
	certificate        *tls.Certificate
	rootCAs, proxyCAs  *x509.CertPool
	maxIdle, maxActive int
	lanes              map[string]*lanes // by proxy URL, "" without a proxy
}

// wire returns new wiring for a profile, or its current one if nothing changed.
func (m *Manager) wire(p *Profile, s *settings, certificate *tls.Certificate) *wiring {
	next := &wiring{
		certificate: certificate, rootCAs: s.rootCAs, proxyCAs: s.rootCAs, maxIdle: s.maxIdle, maxActive: s.maxActive,
		lanes: make(map[string]*lanes),
	}
	if p.ca != nil {
		next.rootCAs = p.ca
	}
	if w := p.wiring; w != nil && sameCertificate(w.certificate, next.certificate) && samePool(w.rootCAs, next.rootCAs) &&
		samePool(w.proxyCAs, next.proxyCAs) && w.maxIdle == next.maxIdle && w.maxActive == next.maxActive {
		return w
	}
	return next
}

// lanes are the transports to endpoints that are reached through the same proxy, or without one.
type lanes struct {
	// main is HTTP/1.1, and HTTP/2 to TLS targets that offer it. plain is for targets without TLS: it equals main unless there is a
	// proxy, which then receives the requests themselves instead of a tunnel. h1 never negotiates HTTP/2, and is used for upgrades.
	// h2c is HTTP/2 without TLS.
	main, plain, h1, h2c *http.Transport
	// direct makes the requests for plain that takes accepts. It is nil if there is a proxy or a limit on connections.
	direct *direct
	// proxied says that the address of the target is not known when a connection is made.
	proxied bool
}

// lanesFor returns the lanes through a proxy, or without one. m.mu must be held.
func (m *Manager) lanesFor(p *Profile, w *wiring, proxy *url.URL) *lanes {
	key := ""
	if proxy != nil {
		key = proxy.String()
	}
	if l := w.lanes[key]; l != nil {
		return l
	}
	c := &connector{guard: m.policy, open: &m.connections, timeout: p.connect, proxy: proxy, serverName: p.serverName, tls: &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: w.rootCAs, ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
	}, proxyTLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: w.proxyCAs}}
	if w.certificate != nil {
		c.tls.Certificates = []tls.Certificate{*w.certificate}
	}
	var http1, both, unencrypted http.Protocols
	http1.SetHTTP1(true)
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	unencrypted.SetUnencryptedHTTP2(true)
	transport := func(protocols http.Protocols) *http.Transport {
		return &http.Transport{
			DialContext: c.dial, Protocols: &protocols,
			MaxIdleConns: maxIdleTotal, MaxIdleConnsPerHost: w.maxIdle, MaxConnsPerHost: w.maxActive, IdleConnTimeout: idleFor,
			ResponseHeaderTimeout: p.response, ExpectContinueTimeout: continueWait, MaxResponseHeaderBytes: maxHeader,
			DisableCompression: true, // bodies are passed on unchanged
			HTTP2:              &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		}
	}
	l := &lanes{main: transport(both), h1: transport(http1), h2c: transport(unencrypted), proxied: proxy != nil}
	l.main.DialTLSContext = c.dialTLS("h2", "http/1.1")
	l.h1.DialTLSContext = c.dialTLS("http/1.1")
	l.plain = l.main
	if proxy != nil {
		l.plain = transport(http1)
		l.plain.Proxy = http.ProxyURL(proxy)
		l.plain.DialContext = c.dialProxyOnly
		l.plain.TLSClientConfig = c.proxyTLS.Clone()
		l.plain.TLSHandshakeTimeout = p.connect
	}
	if proxy == nil && w.maxActive == 0 {
		l.direct = newDirect(c.dialDirect, p.response, w.maxIdle)
	}
	w.lanes[key] = l
	return l
}

// sweep closes direct connections that have been idle for too long. Transports close theirs themselves.
func (l *lanes) sweep(now time.Time) {
	if l.direct != nil {
		l.direct.sweep(now)
	}
}

// closeIdle closes idle connections, and has those in use closed when they become idle.
func (l *lanes) closeIdle() {
	if l.direct != nil {
		l.direct.retire()
	}
	l.main.CloseIdleConnections()
	l.h1.CloseIdleConnections()
	l.h2c.CloseIdleConnections()
	if l.plain != l.main {
		l.plain.CloseIdleConnections()
	}
}
