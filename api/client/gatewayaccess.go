package client

import (
	"context"
	"iter"
	"net/http"

	"github.com/openmep/mep/api/gateway"
)

// Apply requests access to a service that is shared conditionally. The request is not retried. IsNotFound holds for the error
// when there is no such service, IsConflict when a request is already pending or granted.
func (g *Gateway) Apply(ctx context.Context, app gateway.AccessApplication) (*Tagged[gateway.AccessRequest], error) {
	r := g.request(http.MethodPost, "access_requests")
	r.body, r.repeatable = app, false
	return tagged[gateway.AccessRequest](ctx, g.c, r)
}

// AccessFilter selects access requests. Its fields are combined by AND; the zero AccessFilter matches all.
type AccessFilter struct {
	// State selects requests in one state.
	State gateway.AccessState
	// Consumer is the requesting app, Owner the app that offers the service.
	Consumer, Owner string
}

// AccessRequests iterates over the access requests that match f and concern the caller: as consumer or as owner of the service.
// A manager sees all of them. It pages as Routes does.
func (g *Gateway) AccessRequests(ctx context.Context, f AccessFilter) iter.Seq2[gateway.AccessRequest, error] {
	r := g.request(http.MethodGet, "access_requests")
	r.query = given(map[string]string{"state": string(f.State), "consumer": f.Consumer, "owner": f.Owner})
	return pages[gateway.AccessRequest](ctx, g.c, r)
}

// AccessRequest reads an access request. IsNotFound holds for the error when there is no such request that concerns the caller.
func (g *Gateway) AccessRequest(ctx context.Context, id string) (*Tagged[gateway.AccessRequest], error) {
	return tagged[gateway.AccessRequest](ctx, g.c, g.request(http.MethodGet, "access_requests", id))
}

// Decide grants or refuses an access request, including one that was decided before.
func (g *Gateway) Decide(ctx context.Context, id string, decision gateway.AccessDecision, pre ...Precondition) (*Tagged[gateway.AccessRequest], error) {
	r := g.request(http.MethodPut, "access_requests", id)
	r.body = decision
	r.apply(pre)
	return tagged[gateway.AccessRequest](ctx, g.c, r)
}

// DeleteAccessRequest removes an access request and the access it granted. The consumer withdraws a request this way; the owner
// or a manager revokes it.
func (g *Gateway) DeleteAccessRequest(ctx context.Context, id string, pre ...Precondition) error {
	return g.c.remove(ctx, g.request(http.MethodDelete, "access_requests", id), pre)
}
