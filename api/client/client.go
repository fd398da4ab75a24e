// Package client is for those who talk to a MEC platform.
//
// MEC apps do so over Mp1, as ETSI GS MEC 011 V3.1.1 defines it: a Client belongs to a platform, an App to an application
// instance there. They register and discover services and keep them alive, receive notifications, say when they are ready and
// when they may be ended, and read and change their traffic and DNS rules.
//
// MEC platform managers do so over Mm5: a Manager configures, starts, stops and terminates application instances, and follows
// what becomes of them. The records of the platform's DNS server are theirs, too: DNS creates, reads, replaces and removes them,
// and has answers explained.
//
// All four are safe for concurrent use.
//
// A request that fails at the platform returns an *Error, which wraps the *problem.Details the platform sent. Requests that
// may be repeated without harm are repeated, a few times and within the request's context, when the platform answers 503 or
// 429. What creates something with every request is not, such as Register and Subscribe: a 503 does not say that nothing
// happened.
package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/openmep/mep/api/mp1"
)

// The paths of the APIs below the prefix.
const (
	serviceRoot = "/mec_service_mgmt/v1"
	supportRoot = "/mec_app_support/v2"
	managerRoot = "/mm5/v1"
)

// DefaultTimeout bounds a request from the connection to the end of the answer, unless WithHTTPClient says otherwise.
const DefaultTimeout = 15 * time.Second

// Client talks to one MEC platform.
type Client struct {
	root   string // URL the APIs are below, without a trailing slash
	prefix string
	http   *http.Client
	token  TokenSource
	// refused is told of a token that the platform did not take; it may be nil.
	refused func(token string)
}

// Option changes what New and NewManager make.
type Option func(*Client)

// TokenSource returns a bearer token that is valid now. It is called for every request, possibly by several goroutines at a
// time, so it should keep a token for as long as that is valid.
type TokenSource func(ctx context.Context) (string, error)

// WithHTTPClient makes the client send its requests with h, which decides about time-outs, proxies and TLS.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithTokenSource makes the client authenticate with bearer tokens (RFC 6750).
func WithTokenSource(source TokenSource) Option { return func(c *Client) { c.token = source } }

// Tokens gets tokens and hears of those that were refused. *auth.Source is one.
type Tokens interface {
	// Token is a TokenSource.
	Token(ctx context.Context) (string, error)
	// Invalidate says that the platform refused a token, so that the next call of Token returns another one.
	Invalidate(token string)
}

// WithTokens makes the client authenticate with bearer tokens, and ask for another one when one is refused (401), as it is after the
// credentials were changed. A request is then sent a second time: one that was refused had no effect.
func WithTokens(tokens Tokens) Option {
	return func(c *Client) { c.token, c.refused = tokens.Token, tokens.Invalidate }
}

// WithPathPrefix puts a path, such as "/mep", between the base URL and the root of the API.
func WithPathPrefix(prefix string) Option { return func(c *Client) { c.prefix = prefix } }

// New makes a client for the platform at baseURL, an absolute http or https URL such as "https://mep.example:8088". It sends
// nothing yet.
func New(baseURL string, opts ...Option) (*Client, error) {
	u, err := url.Parse(baseURL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("base URL of the platform: %w", err)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, fmt.Errorf("base URL of the platform: %q is not an absolute http or https URL", baseURL)
	case u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("base URL of the platform: %q must not have a query or fragment", baseURL)
	}
	c := &Client{http: &http.Client{Timeout: DefaultTimeout}}
	for _, opt := range opts {
		opt(c)
	}
	c.root = strings.TrimRight(baseURL, "/")
	if prefix := strings.Trim(c.prefix, "/"); prefix != "" {
		c.root += "/" + prefix
	}
	return c, nil
}

// Discover lists the services that match q, whoever offers them (MEC 011 8.2.3.3.1). SUSPENDED ones are left out by the
// platform.
func (c *Client) Discover(ctx context.Context, q Query) ([]mp1.ServiceInfo, error) {
	var list []mp1.ServiceInfo
	r := request{method: http.MethodGet, path: []string{"services"}, query: q.values(), repeatable: true}
	_, err := c.do(ctx, r, &list)
	return list, err
}

// Service reads a service by its serInstanceId, whoever offers it and whatever its state (MEC 011 8.2.4.3.1).
func (c *Client) Service(ctx context.Context, id string) (*Service, error) {
	return c.service(ctx, request{method: http.MethodGet, path: []string{"services", id}, repeatable: true})
}

// Transports lists the transports the platform provides; a registration may name one by its id (MEC 011 8.2.5.3.1).
func (c *Client) Transports(ctx context.Context) ([]mp1.TransportInfo, error) {
	var list []mp1.TransportInfo
	_, err := c.do(ctx, request{method: http.MethodGet, path: []string{"transports"}, repeatable: true}, &list)
	return list, err
}

// Service is a service as the platform answered it.
type Service struct {
	// Info describes the service; Info.SerInstanceID is its id.
	Info mp1.ServiceInfo
	// ETag is the entity-tag of this state of the service, for IfMatch.
	ETag string
	// Location is the URL of the service below the app that offers it.
	Location string
}

func (c *Client) service(ctx context.Context, r request) (*Service, error) {
	s := &Service{}
	ans, err := c.do(ctx, r, &s.Info)
	if err != nil {
		return nil, err
	}
	if s.Info.SerInstanceID == "" {
		return nil, errors.New("the platform's answer holds no serInstanceId")
	}
	s.ETag, s.Location = ans.header.Get("ETag"), ans.header.Get("Location")
	if s.Location == "" && s.Info.Links != nil {
		s.Location = s.Info.Links.Self.Href
	}
	return s, nil
}

// IDOf is the id a Location or href ends in: that of a service, a subscription or an operation. It is "" when the URL has no
// path.
func IDOf(href string) string {
	u, err := url.Parse(href)
	if err != nil || strings.Trim(u.Path, "/") == "" {
		return ""
	}
	return path.Base(u.Path)
}
