package client

import (
	"context"
	"iter"
	"net/http"

	"github.com/openmep/mep/api/gateway"
)

// Apply asks for access to a service that is shared on conditions. It is not repeated. IsNotFound holds for the error when there is no
// such service, IsConflict when there is a request that is pending or granted.
func (g *Gateway) Apply(ctx context.Context, app gateway.AccessApplication) (*Tagged[gateway.AccessRequest], error) {
	r := g.request(http.MethodPost, "access_requests")
	r.body, r.repeatable = app, false
	return tagged[gateway.AccessRequest](ctx, g.c, r)
}

// AccessFilter selects access requests. Its fields are combined by AND; the zero AccessFilter matches all.
type AccessFilter struct {
	// State is a state of requests.
	State gateway.AccessState
	// Consumer is who asked, Owner who offers the service.
	Consumer, Owner string
}

// AccessRequests walks over the access requests that match f and concern the caller: as consumer, as owner of the service, or all of
// them for a manager. It does so as Routes does over routes.
func (g *Gateway) AccessRequests(ctx context.Context, f AccessFilter) iter.Seq2[gateway.AccessRequest, error] {
	r := g.request(http.MethodGet, "access_requests")
	r.query = given(map[string]string{"state": string(f.State), "consumer": f.Consumer, "owner": f.Owner})
	return pages[gateway.AccessRequest](ctx, g.c, r)
}

// AccessRequest reads an access request. IsNotFound holds for the error when there is none that concerns the caller.
func (g *Gateway) AccessRequest(ctx context.Context, id string) (*Tagged[gateway.AccessRequest], error) {
	return tagged[gateway.AccessRequest](ctx, g.c, g.request(http.MethodGet, "access_requests", id))
}

// Decide grants or refuses an access request, also one that was decided before.
func (g *Gateway) Decide(ctx context.Context, id string, decision gateway.AccessDecision, pre ...Precondition) (*Tagged[gateway.AccessRequest], error) {
	r := g.request(http.MethodPut, "access_requests", id)
	r.body = decision
	r.apply(pre)
	return tagged[gateway.AccessRequest](ctx, g.c, r)
}

// DeleteAccessRequest removes an access request and what it granted: the consumer withdraws it, the owner or a manager revokes it.
func (g *Gateway) DeleteAccessRequest(ctx context.Context, id string, pre ...Precondition) error {
	return g.c.remove(ctx, g.request(http.MethodDelete, "access_requests", id), pre)
}
