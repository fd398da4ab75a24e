// Package call is the state of one call on its way through the gateway.
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

// Call is a request that is being answered. It is the context of the request, too, and belongs to the request's goroutine.
type Call struct {
	context.Context //nolint:containedctx // it is one

	// Info is what filters are told.
	Info filter.Call
	// Start is when the request was read; the rest are spans of time since then. Admitted is when it was let through, FirstByte when
	// the header of the response came.
	Start               time.Time
	Admitted, FirstByte time.Duration
	// Held is how long limits held the call back.
	Held time.Duration

	// Peer is the address of the connection's other end. Proxied says that it is a trusted proxy, and not the client.
	Peer    netip.Addr
	Proxied bool
	// Table is what the call is judged by.
	Table *table.Table
	// Route, Group and Instance are what was matched: one of them, and with a Route that leads to a service its Group.
	Route    *table.Route
	Group    *table.Group
	Instance *table.Instance
	// Policy is the policy that holds.
	Policy *table.Policy
	// Path is the path that is passed on, escaped.
	Path string
	// Caller is who calls; nil when nobody had to say.
	Caller *identity.Caller
	// Token is the token that says so, Key whom the API key of the call stands for: what lasts is looked at again (package tenure).
	Token auth.Secret
	Key   *identity.Caller
	// Services are those an API key is good for; none: no such bound.
	Services []string
	// Endpoints are what the call may go to, Attempt how it went.
	Endpoints []*upstream.Endpoint
	Attempt   upstream.Attempt
	// Quota is what was decided about the quotas of the call; nil when it has none.
	Quota *quota.Verdict
	// GRPC says that it is a call of gRPC, whose clients read errors in another way.
	GRPC bool
	// Reason is why the gateway answered by itself, one word for metrics and records; "" when it did not. Fault is the error behind it.
	Reason string
	Fault  error
	// Request is the request as it came to what passes it on, nil before that: the one that is passed on is another.
	Request *http.Request
	// Seen is how many changes there had been when the call was judged last, Stay what package tenure notes of a call that lasts; nil for others.
	Seen uint64
	Stay any
	// Writer is what the response is written to, Body what the request's body is read from.
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

// Since is the time since the request was read.
func (c *Call) Since() time.Duration { return time.Since(c.Start) }
