package harness

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// gatewayDocument describes the management API of the gateway.
const gatewayDocument = "mep_gateway"

// Gateway returns a client of the gateway without a token. Its exchanges are not checked, because most are with services.
func (p *Process) Gateway(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "gateway", "")
}

// GatewayFrom is like Gateway, from one of the machine's own addresses, such as 127.0.0.7.
func (p *Process) GatewayFrom(tb testing.TB, address string) *Client {
	tb.Helper()
	return p.client(tb, "gateway", address)
}

// Mp1AtGateway is like Client, at the gateway.
func (p *Process) Mp1AtGateway(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "gateway", "", mp1Documents...)
}

// AuthAtGateway is like Auth, at the gateway.
func (p *Process) AuthAtGateway(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "gateway", "", "mep_auth")
}

// AccessAtGateway returns a client for access requests at the gateway, whose exchanges are checked against the OpenAPI
// document.
func (p *Process) AccessAtGateway(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "gateway", "", gatewayDocument)
}

// GatewayManagement returns a client of the gateway's management API; for a secure process it has the token of the first
// manager. Its exchanges are checked against the OpenAPI document.
func (p *Process) GatewayManagement(tb testing.TB) *Client {
	tb.Helper()
	c := p.client(tb, "gateway-management", "", gatewayDocument)
	if p.spec.secure {
		return c.With(p.Manager(tb).token)
	}
	return c
}

// UncheckedGatewayManagement is like GatewayManagement without a token and without checks.
func (p *Process) UncheckedGatewayManagement(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "gateway-management", "")
}

// WithCertificate returns a client of a listener that presents a certificate and does not reuse connections.
func (p *Process) WithCertificate(tb testing.TB, listener string, certificate tls.Certificate) *Client {
	tb.Helper()
	settings, err := p.TLS()
	if err != nil {
		tb.Fatalf("harness: %v", err)
	}
	settings.Certificates = []tls.Certificate{certificate}
	t := &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	return newClient(tb, func() string { return p.URL(listener) }, t)
}

// StartWithout is like Start with one of the listeners, and the corresponding management listener, turned off.
func StartWithout(tb testing.TB, listener string, opts ...Option) *Process {
	tb.Helper()
	return start(tb, "mep", append([]Option{func(s *spec) { s.without = listener }}, opts...)...)
}

// Seen is a request as received by a Producer.
type Seen struct {
	// Producer is the name of the receiving Producer.
	Producer string
	Method   string
	Host     string
	// Path is percent-encoded as received.
	Path   string
	Query  string
	Proto  string
	Header http.Header
	Body   string
}

// Names returns the values of all header fields whose names equal field when case is ignored and "_" counts as "-", as on many
// servers.
func (s Seen) Names(field string) []string {
	var values []string
	for name, v := range s.Header {
		if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), field) {
			values = append(values, v...)
		}
	}
	return values
}

// Producer is an HTTP server of an app. It echoes requests unless it was given a handler.
type Producer struct {
	*httptest.Server

	name string
	mu   sync.Mutex
	seen []Seen
}

// NewProducer runs a producer on 127.0.0.1 until the test ends. With a nil handler it echoes requests.
func NewProducer(tb testing.TB, name string, handler http.HandlerFunc) *Producer {
	tb.Helper()
	p := unstarted(name, handler)
	p.Start()
	tb.Cleanup(p.Close)
	return p
}

// NewHTTP2Producer is like NewProducer with HTTP/2 without TLS, which gRPC servers within a host use.
func NewHTTP2Producer(tb testing.TB, name string, handler http.HandlerFunc) *Producer {
	tb.Helper()
	p := unstarted(name, handler)
	p.Config.Protocols = new(http.Protocols)
	p.Config.Protocols.SetUnencryptedHTTP2(true)
	p.Start()
	tb.Cleanup(p.Close)
	return p
}

func unstarted(name string, handler http.HandlerFunc) *Producer {
	p := &Producer{name: name}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler != nil {
			p.note(r, "")
			handler(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		s := p.note(r, string(body))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Producer", name)
		_ = json.NewEncoder(w).Encode(s) // the caller may be gone
	}))
	return p
}

func (p *Producer) note(r *http.Request, body string) Seen {
	s := Seen{
		Producer: p.name, Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Proto: r.Proto,
		Header: r.Header.Clone(), Body: body,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, s)
	return s
}

// Seen returns the requests received so far.
func (p *Producer) Seen() []Seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Seen(nil), p.seen...)
}

// Forget discards the requests received so far.
func (p *Producer) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = nil
}

// Seen decodes the response of a Producer; the test ends when it is not one.
func (a *Answer) Seen() Seen {
	a.tb.Helper()
	var s Seen
	a.Is(http.StatusOK).Into(&s)
	if s.Producer == "" {
		a.tb.Fatalf("this is not the answer of a producer: %s", a.Body)
	}
	return s
}

// AccessRecords reads the access records of a process until at least wanted of them satisfy holds, and returns those.
func (p *Process) AccessRecords(tb testing.TB, wanted int, holds func(Object) bool) []Object {
	tb.Helper()
	var found []Object
	Eventually(tb, "calls are written down", func() error {
		data, err := os.ReadFile(filepath.Join(p.DataDir, "access", "access.jsonl"))
		if err != nil {
			return err
		}
		found = nil
		for line := range strings.Lines(string(data)) {
			if !strings.HasSuffix(line, "\n") {
				break // still being written
			}
			var r Object
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			if holds(r) {
				found = append(found, r)
			}
		}
		return Not(len(found) >= wanted, "there are %d such records, not %d, in\n%s", len(found), wanted, data)
	})
	return found
}
