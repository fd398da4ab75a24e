// Package call holds the state of one call on its way through the gateway.
package call

import (
	"context"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/gateway/filter"
	"github.com/openmep/mep/gateway/quota"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/identity"
)

// Call is a request that the gateway is answering. It is also the context of the request, and belongs to the request's goroutine.
type Call struct {
	context.Context //nolint:containedctx // a Call is a context

	// Info is what filters see of the call.
	Info filter.Call
	// Start is when the request was read. Admitted and FirstByte are the times from then until the call was let through, and until the
	// header of the response arrived.
	Start               time.Time
	Admitted, FirstByte time.Duration
	// Held is how long limits held the call back.
	Held time.Duration

	// Peer is the address of the other end of the connection. Proxied reports whether that is a trusted proxy and not the client.
	Peer    netip.Addr
	Proxied bool
	// Table is the routing table that the call is judged by.
	Table *table.Table
	// Route, Group and Instance are what the call matched: one of them, or a Route that leads to a service together with its Group.
	Route    *table.Route
	Group    *table.Group
	Instance *table.Instance
	// Policy is the policy in force for the call.
	Policy *table.Policy
	// Path is the escaped path that is passed on.
	Path string
	// Caller is the authenticated caller; nil for an anonymous call.
	Caller *identity.Caller
	// Token is the token that proves who calls, Key the caller that the API key of the call stands for. Package tenure checks both again
	// while a call lasts.
	Token auth.Secret
	Key   *identity.Caller
	// Services are the services that the API key is valid for; when empty, the key is not limited to any.
	Services []string
	// Endpoints are the endpoints that the call may go to. Attempt records how calling them went.
	Endpoints []*upstream.Endpoint
	Attempt   upstream.Attempt
	// Quota is the verdict on the quotas of the call; nil when it has none.
	Quota *quota.Verdict
	// GRPC reports whether this is a gRPC call: gRPC clients read errors in another way.
	GRPC bool
	// Reason says in one word, for metrics and records, why the gateway answered the call itself, or why the answer broke off; ""
	// otherwise. Fault is the error behind it.
	Reason string
	Fault  error
	// Request is the request as it reached the proxy; nil before that. The request that is passed on is a different one.
	Request *http.Request
	// Seen is the number of changes there had been when the call was last judged. Stay is what package tenure keeps about a call that
	// lasts; nil for other calls.
	Seen uint64
	Stay any
	// Writer writes the response; Body reads the body of the request.
	Writer Writer
	Body   Body

	ending atomic.Pointer[Ending]
}

type key struct{}

// Value implements context.Context.
func (c *Call) Value(k any) any {
	switch k {
	case key{}:
		return c
	case filter.Key:
		return &c.Info
	}
	return c.Context.Value(k)
}

// Of returns the call a request belongs to.
func Of(r *http.Request) *Call {
	c, _ := r.Context().Value(key{}).(*Call)
	return c
}

// Since returns the time since the request was read.
func (c *Call) Since() time.Duration { return time.Since(c.Start) }
