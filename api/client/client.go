// Package client provides clients for the APIs of a MEC platform.
//
// MEC apps use Mp1, as ETSI GS MEC 011 V3.1.1 defines it: a Client talks to one platform, an App to one application instance on
// it. Apps register and discover services and keep them alive, receive notifications, report that they are ready or may be
// terminated, and read and change their traffic and DNS rules.
//
// MEC platform managers use Mm5: a Manager configures, starts, stops and terminates application instances, and follows their
// changes. Managers also use DNS, which creates, reads, replaces and removes the records of the platform's DNS server and
// explains its answers, and Gateway, which manages the platform's gateway.
//
// All clients are safe for concurrent use.
//
// A request that the platform refuses returns an *Error, which wraps the *problem.Details that the platform sent. When the
// platform answers 503 or 429, idempotent requests are retried a few times within the request's context. Requests that create
// something each time, such as Register and Subscribe, are not retried: a 503 does not mean that the request had no effect.
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

// DefaultTimeout bounds a request, from connecting to the end of the response body, unless WithHTTPClient overrides it.
const DefaultTimeout = 15 * time.Second

// Client talks to one MEC platform.
type Client struct {
	root   string // base URL of the APIs, without a trailing slash
	prefix string
	http   *http.Client
	token  TokenSource
	// refused is called with a token that the platform rejected; it may be nil.
	refused func(token string)
}

// Option configures a client made by New, NewManager, NewDNS or NewGateway.
type Option func(*Client)

// TokenSource returns a bearer token that is currently valid. It is called for every request, possibly from several goroutines
// at once, so it should cache a token for as long as the token is valid.
type TokenSource func(ctx context.Context) (string, error)

// WithHTTPClient makes the client send its requests with h, which determines time-outs, proxies and TLS.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithTokenSource makes the client authenticate with bearer tokens (RFC 6750).
func WithTokenSource(source TokenSource) Option { return func(c *Client) { c.token = source } }

// Tokens supplies tokens and is notified of rejected ones. *auth.Source implements it.
type Tokens interface {
	// Token returns a valid token, as a TokenSource does.
	Token(ctx context.Context) (string, error)
	// Invalidate reports that the platform rejected token, so that the next call of Token returns another one.
	Invalidate(token string)
}

// WithTokens makes the client authenticate with bearer tokens and renew a token that the platform rejects with 401, for
// instance after the credentials were changed. The request is then sent a second time, which is safe because a rejected request
// had no effect.
func WithTokens(tokens Tokens) Option {
	return func(c *Client) { c.token, c.refused = tokens.Token, tokens.Invalidate }
}

// WithPathPrefix inserts a path, such as "/mep", between the base URL and the root of the API.
func WithPathPrefix(prefix string) Option { return func(c *Client) { c.prefix = prefix } }

// New returns a client for the platform at baseURL, an absolute http or https URL such as "https://mep.example:8088". It sends
// no request.
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

// Discover lists the services of all apps that match q (MEC 011 8.2.3.3.1). The platform omits SUSPENDED services.
func (c *Client) Discover(ctx context.Context, q Query) ([]mp1.ServiceInfo, error) {
	var list []mp1.ServiceInfo
	r := request{method: http.MethodGet, path: []string{"services"}, query: q.values(), repeatable: true}
	_, err := c.do(ctx, r, &list)
	return list, err
}

// Service reads a service of any app, in any state, by its serInstanceId (MEC 011 8.2.4.3.1).
func (c *Client) Service(ctx context.Context, id string) (*Service, error) {
	return c.service(ctx, request{method: http.MethodGet, path: []string{"services", id}, repeatable: true})
}

// Transports lists the transports the platform provides; a registration may name one by its id (MEC 011 8.2.5.3.1).
func (c *Client) Transports(ctx context.Context) ([]mp1.TransportInfo, error) {
	var list []mp1.TransportInfo
	_, err := c.do(ctx, request{method: http.MethodGet, path: []string{"transports"}, repeatable: true}, &list)
	return list, err
}

// Service is a service as returned by the platform.
type Service struct {
	// Info describes the service; Info.SerInstanceID is its id.
	Info mp1.ServiceInfo
	// ETag is the entity-tag of this state of the service, for use with IfMatch.
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

// IDOf returns the last path segment of a Location or href, which is the id of a service, a subscription or an operation. It
// returns "" when the URL has no path.
func IDOf(href string) string {
	u, err := url.Parse(href)
	if err != nil || strings.Trim(u.Path, "/") == "" {
		return ""
	}
	return path.Base(u.Path)
}
