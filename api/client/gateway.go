package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/openmep/mep/api/gateway"
)

// Gateway manages the platform's gateway: its routes, policies, API keys and access requests, and its status and statistics.
// Apps may also use access requests, at the gateway itself. Gateway is safe for concurrent use.
//
// A change is in effect at the gateway when the method that makes it returns without an error.
type Gateway struct{ c *Client }

// NewGateway returns a client for the gateway whose management listener is at baseURL, an absolute http or https URL such as
// "https://mep.example:8444". It sends no request.
func NewGateway(baseURL string, opts ...Option) (*Gateway, error) {
	c, err := New(baseURL, opts...)
	if err != nil {
		return nil, err
	}
	return &Gateway{c: c}, nil
}

func (g *Gateway) request(method string, segments ...string) request {
	return request{method: method, root: gateway.Base, path: segments, repeatable: true}
}

// given returns the non-empty values.
func given(values map[string]string) url.Values {
	v := url.Values{}
	for name, value := range values {
		if value != "" {
			v.Set(name, value)
		}
	}
	return v
}

// pages iterates over a list page by page.
func pages[T any](ctx context.Context, c *Client, r request) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		query := url.Values{"limit": {"1000"}}
		maps.Copy(query, r.query)
		r.query = query
		for {
			var page []T
			ans, err := c.do(ctx, r, &page)
			if err != nil {
				yield(none, err)
				return
			}
			for _, element := range page {
				if !yield(element, nil) {
					return
				}
			}
			after := nextPage(ans.header)
			if after == "" {
				return
			}
			if after == r.query.Get("after") {
				yield(none, errors.New("the platform's answer names itself as the next page"))
				return
			}
			r.query.Set("after", after)
		}
	}
}

// RouteFilter selects routes. Its fields are combined by AND; the zero RouteFilter matches all routes.
type RouteFilter struct {
	// Kind is gateway.KindPlatform, KindService, KindInstance or KindStatic.
	Kind string
	// Service is the serName of a service.
	Service string
	// Source is registry, configuration, management or platform.
	Source string
}

// Routes iterates over the gateway's routes that match f, ordered by id. It reads them page by page and may miss routes that
// are created or removed meanwhile. The iteration ends with the first error.
func (g *Gateway) Routes(ctx context.Context, f RouteFilter) iter.Seq2[gateway.RouteView, error] {
	r := g.request(http.MethodGet, "routes")
	r.query = given(map[string]string{"kind": f.Kind, "service": f.Service, "source": f.Source})
	return pages[gateway.RouteView](ctx, g.c, r)
}

// Route reads a route. The entity-tag is that of the route's definition, "" for a route that is not managed through this API.
// IsNotFound holds for the error when there is no such route.
func (g *Gateway) Route(ctx context.Context, id string) (*Tagged[gateway.RouteView], error) {
	return tagged[gateway.RouteView](ctx, g.c, g.request(http.MethodGet, "routes", id))
}

// PutRoute creates or replaces the static route with the id of route and returns the gateway's view of it, in which Refused
// says why the route cannot be used. IsConflict holds for the error when the gateway's configuration has a route with that id.
func (g *Gateway) PutRoute(ctx context.Context, route gateway.Route, pre ...Precondition) (*Tagged[gateway.RouteView], error) {
	r := g.request(http.MethodPut, "routes", route.ID)
	r.body = route
	r.apply(pre)
	return tagged[gateway.RouteView](ctx, g.c, r)
}

// DeleteRoute removes a static route. IsNotFound holds for the error when there was no such route; a retry that finds the route
// gone succeeds.
func (g *Gateway) DeleteRoute(ctx context.Context, id string, pre ...Precondition) error {
	return g.c.remove(ctx, g.request(http.MethodDelete, "routes", id), pre)
}

// Policies iterates over the gateway's policies, ordered by name. It pages as Routes does.
func (g *Gateway) Policies(ctx context.Context) iter.Seq2[gateway.PolicyView, error] {
	return pages[gateway.PolicyView](ctx, g.c, g.request(http.MethodGet, "policies"))
}

// Policy reads a policy by its name: a serName, gateway.AnyService or the id of a platform route. The entity-tag is that of the
// policy's definition. IsNotFound holds for the error when there is no such policy.
func (g *Gateway) Policy(ctx context.Context, name string) (*Tagged[gateway.PolicyView], error) {
	return tagged[gateway.PolicyView](ctx, g.c, g.request(http.MethodGet, "policies", name))
}

// PutPolicy creates or replaces a policy and returns the gateway's view of it, in which Refused says why the policy cannot be
// used. IsConflict holds for the error when the gateway's configuration has a policy with that name.
func (g *Gateway) PutPolicy(ctx context.Context, name string, policy gateway.Policy, pre ...Precondition) (*Tagged[gateway.PolicyView], error) {
	r := g.request(http.MethodPut, "policies", name)
	r.body = policy
	r.apply(pre)
	return tagged[gateway.PolicyView](ctx, g.c, r)
}

// DeletePolicy removes a policy. Its errors are those of DeleteRoute.
func (g *Gateway) DeletePolicy(ctx context.Context, name string, pre ...Precondition) error {
	return g.c.remove(ctx, g.request(http.MethodDelete, "policies", name), pre)
}

// CreateAPIKey creates an API key and returns it with Key, which the platform does not show again. The request is not retried.
func (g *Gateway) CreateAPIKey(ctx context.Context, req gateway.APIKeyRequest) (*gateway.APIKey, error) {
	r := g.request(http.MethodPost, "api_keys")
	r.body, r.repeatable = req, false
	key := &gateway.APIKey{}
	if _, err := g.c.do(ctx, r, key); err != nil {
		return nil, err
	}
	return key, nil
}

// APIKeys iterates over the API keys of a consumer, or over all keys when consumer is "", ordered by id. It pages as Routes
// does.
func (g *Gateway) APIKeys(ctx context.Context, consumer string) iter.Seq2[gateway.APIKey, error] {
	r := g.request(http.MethodGet, "api_keys")
	r.query = given(map[string]string{"consumer": consumer})
	return pages[gateway.APIKey](ctx, g.c, r)
}

// APIKey reads the metadata of an API key by its id. IsNotFound holds for the error when there is no such key.
func (g *Gateway) APIKey(ctx context.Context, id string) (*gateway.APIKey, error) {
	key := &gateway.APIKey{}
	if _, err := g.c.do(ctx, g.request(http.MethodGet, "api_keys", id), key); err != nil {
		return nil, err
	}
	return key, nil
}

// DeleteAPIKey removes an API key, which the gateway rejects from then on. Its errors are those of DeleteRoute.
func (g *Gateway) DeleteAPIKey(ctx context.Context, id string) error {
	return g.c.remove(ctx, g.request(http.MethodDelete, "api_keys", id), nil)
}

// Explain reports how the gateway would handle a call.
func (g *Gateway) Explain(ctx context.Context, req gateway.ExplainRequest) (*gateway.Explanation, error) {
	r := g.request(http.MethodPost, "explain")
	r.body = req
	e := &gateway.Explanation{}
	if _, err := g.c.do(ctx, r, e); err != nil {
		return nil, err
	}
	return e, nil
}

// Status reads the status of the gateway.
func (g *Gateway) Status(ctx context.Context) (*gateway.Status, error) {
	s := &gateway.Status{}
	if _, err := g.c.do(ctx, g.request(http.MethodGet, "status"), s); err != nil {
		return nil, err
	}
	return s, nil
}

// Upstreams iterates over the targets of the routes. It pages as Routes does.
func (g *Gateway) Upstreams(ctx context.Context) iter.Seq2[gateway.TargetView, error] {
	return pages[gateway.TargetView](ctx, g.c, g.request(http.MethodGet, "upstreams"))
}

// StatisticsFilter selects counts of calls.
type StatisticsFilter struct {
	// Service and Consumer are "" for all services and all consumers.
	Service, Consumer string
	// Resolution is gateway.StatMinute, StatHour or StatDay; "" means StatHour.
	Resolution string
	// From and To bound the times of the buckets. A zero To means now; a zero From means an hour, a day or a week before To.
	From, To time.Time
}

// Statistics reads the counts of calls that match f.
func (g *Gateway) Statistics(ctx context.Context, f StatisticsFilter) (*gateway.Statistics, error) {
	r := g.request(http.MethodGet, "statistics")
	values := map[string]string{"service": f.Service, "consumer": f.Consumer, "resolution": f.Resolution}
	for name, t := range map[string]time.Time{"from": f.From, "to": f.To} {
		if !t.IsZero() {
			values[name] = t.UTC().Format(time.RFC3339)
		}
	}
	r.query = given(values)
	s := &gateway.Statistics{}
	if _, err := g.c.do(ctx, r, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Quotas iterates over the quota use of a route and a consumer, where "" stands for all of them. It pages as Routes does.
func (g *Gateway) Quotas(ctx context.Context, route, consumer string) iter.Seq2[gateway.QuotaUse, error] {
	r := g.request(http.MethodGet, "quotas")
	r.query = given(map[string]string{"route": route, "consumer": consumer})
	return pages[gateway.QuotaUse](ctx, g.c, r)
}

// Export returns the routes as YAML configuration for another gateway; format is kong or envoy. The request is not retried.
func (g *Gateway) Export(ctx context.Context, format string) ([]byte, error) {
	r := g.request(http.MethodGet, "export")
	r.query, r.accept = url.Values{"format": {format}}, "application/yaml"
	target, err := g.c.url(&r)
	if err != nil {
		return nil, err
	}
	req, _, err := g.c.prepare(ctx, &r, target, nil)
	if err != nil {
		return nil, err
	}
	resp, err := g.c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, newError(resp)
	}
	text, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, target, err)
	}
	return text, nil
}
