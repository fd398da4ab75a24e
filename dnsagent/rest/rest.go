// Package rest speaks HTTP for the management of the DNS server: records, and what the server knows and does.
//
// The requests and the texts of success are those of EdgeGallery's DNS server, which tells its failures apart by 400 and 500 only: it
// answers 400 to a record that exists already (409 here) and to the replacement of one that does not (404), and 500 to a removal of
// one that does not (404) and to types and classes it does not have (400).
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
	// Zones lists the zones it is authoritative for.
	Zones() []dns.Zone
	// Upstreams lists the servers it forwards to.
	Upstreams() []dns.Upstream
	// Flush removes what the cache holds of a canonical name and, if below is true, of all names below it; of all names when it is
	// empty. It returns how many entries that were.
	Flush(name string, below bool) (int, error)
	// Trace explains the answer to a question.
	Trace(ctx context.Context, req dns.TraceRequest) (*dns.Trace, error)
	// Unanswered says why a record, in its normal form, is not answered; nothing when it is.
	Unanswered(rec *dns.Record) string
	// Served waits until it answers from what the records were at the revision of etcd.
	Served(ctx context.Context, revision int64) error
}

// API holds what the handlers need.
type API struct {
	// Book changes and finds records.
	Book *records.Book
	// Server is the DNS server that answers from them.
	Server Server
	// Audit takes who changed what.
	Audit *audit.Log
}

// Mount adds the resources. Whoever gets to them may manage the DNS server.
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

// audited writes down who did what, with what result. The handler returns what the line says besides.
func (a *API) audited(action string, h func(*gin.Context) (detail string, err error)) gin.HandlerFunc {
	return identity.Audited(a.Audit, action, "fqdn", h)
}

// served waits until the DNS server answers from a change that is stored: what is answered with success is in force.
func (a *API) served(ctx context.Context, revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	err := a.Server.Served(ctx, revision)
	if err == nil {
		return nil
	}
	return errs.Wrap(errs.Unavailable, err, "the change is stored, but the DNS server does not answer from it yet: read it back").After(time.Second)
}

// done answers what EdgeGallery answers with a text.
func done(c *gin.Context, text string) { c.String(http.StatusOK, "%s\n", text) }
