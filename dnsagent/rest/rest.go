// Package rest implements the HTTP API that manages the DNS server: its records, its state and its actions.
//
// Requests and success texts are those of EdgeGallery's DNS server. That server reports failures as 400 or 500 only: 400 for creating
// a record that exists (409 here) and for replacing one that does not (404), 500 for removing one that does not (404) and for types
// and classes it does not have (400).
package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
)

// Server is the DNS server.
type Server interface {
	// Zones lists the zones that the server is authoritative for.
	Zones() []dns.Zone
	// Upstreams lists the servers that the server forwards to.
	Upstreams() []dns.Upstream
	// Flush removes the cache entries of a canonical name and, if below is true, of all names below it. An empty name means all
	// names. Flush returns the number of removed entries.
	Flush(name string, below bool) (int, error)
	// Trace explains the answer to a query.
	Trace(ctx context.Context, req dns.TraceRequest) (*dns.Trace, error)
	// Unanswered returns why a record, in its normal form, is not answered, or "" if it is.
	Unanswered(rec *dns.Record) string
	// Served waits until the server answers from the records as of the etcd revision.
	Served(ctx context.Context, revision int64) error
}

// API holds the dependencies of the handlers.
type API struct {
	// Book finds and changes records.
	Book *records.Book
	// Server is the DNS server that answers from the records.
	Server Server
	// Audit records who changed what.
	Audit *audit.Log
}

// Mount adds the resources to r. Every caller that reaches them may manage the DNS server.
func (a *API) Mount(r gin.IRouter) {
	g := r.Group(dns.Base)
	g.POST("/rrecord", a.audited("dns.record.create", a.create))
	g.GET("/rrecord", httpx.Handle(a.list))
	g.DELETE("/rrecord", a.audited("dns.record.delete", a.deleteAll))
	const one = "/rrecord/:fqdn/:rrtype"
	g.GET(one, httpx.Handle(a.get))
	g.PUT(one, a.audited("dns.record.replace", a.replace))
	g.DELETE(one, a.audited("dns.record.delete", a.delete))
	g.GET("/zones", httpx.Handle(a.zones))
	g.GET("/upstreams", httpx.Handle(a.upstreams))
	g.POST("/cache/flush", a.audited("dns.cache.flush", a.flush))
	g.GET("/trace", httpx.Handle(a.trace))
}

// audited makes a handler that records in the audit log who did what, with what result. h returns further details.
func (a *API) audited(action string, h func(*gin.Context) (detail string, err error)) gin.HandlerFunc {
	return identity.Audited(a.Audit, action, "fqdn", h)
}

// served waits until the DNS server answers from a stored change: a change reported as successful is in force.
func (a *API) served(ctx context.Context, revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	err := a.Server.Served(ctx, revision)
	if err == nil {
		return nil
	}
	return errs.Wrap(errs.Unavailable, err, "the change is stored, but the DNS server does not answer from it yet: read it back").After(time.Second)
}

// done responds with 200 and text, where EdgeGallery responds with a text.
func done(c *gin.Context, text string) { c.String(http.StatusOK, "%s\n", text) }
