package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/openmep/mep/tests/contract"
)

// Client sends requests to one process on behalf of one test. It is safe for concurrent use.
type Client struct {
	tb   testing.TB
	base func() string
	http *http.Client

	token string // "" for none
}

// mp1Documents describe the APIs at the Mp1 listener.
var mp1Documents = []string{"mec_service_mgmt", "mec_app_support"}

// Client returns a client of the Mp1 listener, whose exchanges are checked against the OpenAPI documents. It does not follow
// redirects.
func (p *Process) Client(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "mp1", "", mp1Documents...)
}

// Ops returns a client of the operations listener.
func (p *Process) Ops(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "ops", "", "ops")
}

// Unchecked returns a client of the Mp1 listener whose exchanges are not checked.
func (p *Process) Unchecked(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "mp1", "")
}

// client returns a client of a listener that connects from an address, "" for any, and checks its exchanges against documents.
func (p *Process) client(tb testing.TB, listener, from string, documents ...string) *Client {
	tb.Helper()
	base, err := p.transport(from)
	if err != nil {
		tb.Fatalf("harness: %v", err)
	}
	var checked http.RoundTripper = base
	for _, document := range documents {
		checked = contract.New(tb, document).Transport(checked)
	}
	return newClient(tb, func() string { return p.URL(listener) }, checked)
}

func newClient(tb testing.TB, base func() string, t http.RoundTripper) *Client {
	return &Client{tb: tb, base: base, http: &http.Client{
		Transport:     t,
		Timeout:       Patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// With returns a copy of the client that sends token with every request, unless an option overrides it.
func (c *Client) With(token string) *Client {
	with := *c
	with.token = token
	return &with
}

// TB returns the test of the client.
func (c *Client) TB() testing.TB { return c.tb }

// Base returns the URL that relative targets are appended to.
func (c *Client) Base() string { return c.base() }

// Answer is a response with its complete body.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte

	tb testing.TB
}

// RequestOption changes a request before it is sent.
type RequestOption func(*http.Request)

// Header sets a header field; an empty value removes it.
func Header(name, value string) RequestOption {
	return func(r *http.Request) {
		if value == "" {
			r.Header.Del(name)
		} else {
			r.Header.Set(name, value)
		}
	}
}

// Headers sets a header field to several values.
func Headers(name string, values ...string) RequestOption {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

// Tolerated marks a request that violates the OpenAPI document but that the platform accepts by a documented decision.
func Tolerated() RequestOption {
	return func(r *http.Request) { *r = *r.WithContext(contract.Tolerated(r.Context())) }
}

// Context sets the context of the request.
func Context(ctx context.Context) RequestOption {
	return func(r *http.Request) { *r = *r.WithContext(ctx) }
}

// Do performs an exchange and ends the test when there is no response. target is a URL, or a path and query relative to the
// listener. body is nil for none, a string or []byte to be sent as it is, an io.Reader to be sent chunked, or anything else to
// be sent as JSON.
func (c *Client) Do(method, target string, body any, options ...RequestOption) *Answer {
	c.tb.Helper()
	a, err := c.Try(method, target, body, options...)
	if err != nil {
		c.tb.Fatalf("%s %s: %v", method, target, err)
	}
	return a
}

// Try is like Do but returns an error when there is no response.
func (c *Client) Try(method, target string, body any, options ...RequestOption) (*Answer, error) {
	c.tb.Helper()
	if !strings.HasPrefix(target, "http://") && !strings.HasPrefix(target, "https://") {
		target = c.base() + target
	}
	var reader io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(body)
	case []byte:
		reader = bytes.NewReader(body)
	case io.Reader:
		reader = struct{ io.Reader }{body} // of unknown length
	default:
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, target, reader)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for _, option := range options {
		option(req)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: data, tb: c.tb}, nil
}

// Get reads a resource.
func (c *Client) Get(target string, options ...RequestOption) *Answer {
	c.tb.Helper()
	return c.Do(http.MethodGet, target, nil, options...)
}

// Head reads the headers of a resource.
func (c *Client) Head(target string, options ...RequestOption) *Answer {
	c.tb.Helper()
	return c.Do(http.MethodHead, target, nil, options...)
}

// Post creates a resource.
func (c *Client) Post(target string, body any, options ...RequestOption) *Answer {
	c.tb.Helper()
	return c.Do(http.MethodPost, target, body, options...)
}

// Put replaces a resource.
func (c *Client) Put(target string, body any, options ...RequestOption) *Answer {
	c.tb.Helper()
	return c.Do(http.MethodPut, target, body, options...)
}

// Patch changes a resource.
func (c *Client) Patch(target string, body any, options ...RequestOption) *Answer {
	c.tb.Helper()
	return c.Do(http.MethodPatch, target, body, options...)
}

// Delete removes a resource.
func (c *Client) Delete(target string, options ...RequestOption) *Answer {
	c.tb.Helper()
	return c.Do(http.MethodDelete, target, nil, options...)
}

// Is ends the test unless the response has the status, and returns the response.
func (a *Answer) Is(status int) *Answer {
	a.tb.Helper()
	if a.Status != status {
		a.tb.Fatalf("answered %d, not %d: %s", a.Status, status, a.Body)
	}
	return a
}

// Into decodes the body as JSON.
func (a *Answer) Into(v any) {
	a.tb.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		a.tb.Fatalf("the body is not what was expected: %v: %s", err, a.Body)
	}
}

// Object is a JSON object.
type Object = map[string]any

// Object decodes the body as a JSON object.
func (a *Answer) Object() Object {
	a.tb.Helper()
	var o Object
	a.Into(&o)
	return o
}

// Array decodes the body as a JSON array of objects.
func (a *Answer) Array() []Object {
	a.tb.Helper()
	var list []Object
	a.Into(&list)
	if list == nil {
		a.tb.Fatalf("the body is not an array: %s", a.Body)
	}
	return list
}

// ETag returns the entity-tag of the response; the test ends when there is none.
func (a *Answer) ETag() string {
	a.tb.Helper()
	tag := a.Header.Get("ETag")
	if tag == "" {
		a.tb.Fatalf("the answer has no ETag: %d %s", a.Status, a.Body)
	}
	return tag
}

// InvalidParam names an invalid part of a request.
type InvalidParam struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Problem is the body of an error response.
type Problem struct {
	Type          string         `json:"type"`
	Title         string         `json:"title"`
	Status        int            `json:"status"`
	Detail        string         `json:"detail"`
	Instance      string         `json:"instance"`
	InvalidParams []InvalidParam `json:"invalidParams"`
}

// Names returns the names of the refused parts of the request.
func (p Problem) Names() []string {
	names := make([]string, len(p.InvalidParams))
	for i, f := range p.InvalidParams {
		names[i] = f.Name
	}
	return names
}

// Problem ends the test unless the response is a problem document with the status, and returns the document.
func (a *Answer) Problem(status int) Problem {
	a.tb.Helper()
	a.Is(status)
	if ct := a.Header.Get("Content-Type"); ct != "application/problem+json" {
		a.tb.Fatalf("the Content-Type of a refusal is %q: %s", ct, a.Body)
	}
	var p Problem
	a.Into(&p)
	if p.Status != status {
		a.tb.Fatalf("the problem's status is %d, that of the answer %d", p.Status, status)
	}
	if p.Title == "" || p.Detail == "" {
		a.tb.Fatalf("the problem lacks title or detail: %s", a.Body)
	}
	return p
}

// Path returns the path of a URL from a response; the test ends when the URL is not absolute.
func Path(tb testing.TB, href string) string {
	tb.Helper()
	u, err := url.Parse(href)
	if err != nil || !u.IsAbs() || u.Host == "" {
		tb.Fatalf("%q is not an absolute URL", href)
	}
	return u.EscapedPath()
}
