package rest

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
)

// create creates one record or several, all or none.
func (a *API) create(c *gin.Context) (string, error) {
	p, err := read(c, "zone", "view")
	if err != nil {
		return "", err
	}
	p.zone("zone")
	p.view()
	if err := p.Err(); err != nil {
		return "", err
	}
	list, err := a.records(c, p)
	if err != nil {
		return "", err
	}
	ctx := c.Request.Context()
	revision, err := a.Book.Create(ctx, list...)
	if err != nil {
		return "", err
	}
	if err := a.served(ctx, revision); err != nil {
		return "", err
	}
	done(c, fmt.Sprintf("created: %d", len(list)))
	return summary(list), nil
}

// summary lists the names, types and views of records.
func summary(list []dns.Record) string {
	var b strings.Builder
	for i := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(list[i].Name + " " + list[i].Type)
		if list[i].View != "" {
			b.WriteString(" of the view " + list[i].View)
		}
	}
	return b.String()
}

// address identifies a record by the path and the view in the query.
type address struct{ name, rrtype, view string }

func (p params) address(c *gin.Context) address {
	var a address
	a.name, a.rrtype = p.path(c)
	if view := p.view(); view != nil {
		a.view = *view
	}
	return a
}

// detail returns what an audit line says of the record besides its name.
func (a address) detail() string {
	if a.view == "" {
		return a.rrtype
	}
	return a.rrtype + " of the view " + a.view
}

func (a *API) get(c *gin.Context) error {
	p, err := read(c, "view")
	if err != nil {
		return err
	}
	at := p.address(c)
	if err := p.Err(); err != nil {
		return err
	}
	item, err := a.Book.Get(at.name, at.rrtype, at.view)
	if err != nil {
		return err
	}
	rec := a.shown(item)
	tag := records.ETag(item)
	if rec.NotServed != "" {
		tag = unservedTag(item)
	}
	if httpx.NotModified(c, tag) {
		return nil
	}
	httpx.SetETag(c, tag)
	return httpx.JSON(c, http.StatusOK, rec)
}

// shown returns a record as it is shown: with the reason if it is not answered.
func (a *API) shown(item *records.Item) *dns.Record {
	why := a.Server.Unanswered(item.Value)
	if why == "" {
		return item.Value
	}
	rec := *item.Value
	rec.NotServed = why
	return &rec
}

// unservedTag returns the entity-tag of a record that is not answered and so is shown differently. No other begins with 0.
func unservedTag(item *records.Item) string { return `"0` + records.ETag(item)[1:] }

func (a *API) replace(c *gin.Context) (string, error) {
	p, err := read(c, "zone", "view")
	if err != nil {
		return "", err
	}
	at := p.address(c)
	p.zone("zone")
	if err := p.Err(); err != nil {
		return "", err
	}
	rec, err := a.record(c, p)
	if err != nil {
		return "", err
	}
	rec.Normalise()
	if rec.Name != at.name {
		p.Faults.Add("name", "must be that of the path, "+at.name)
	}
	if rec.Type != at.rrtype {
		p.Faults.Add("type", "must be that of the path, "+at.rrtype)
	}
	if err := p.Err(); err != nil {
		return "", err
	}
	at.view = rec.View
	ctx := c.Request.Context()
	item, err := a.Book.Replace(ctx, rec, a.ifMatch(c))
	if err != nil {
		return "", err
	}
	if err := a.served(ctx, item.ModRevision); err != nil {
		return "", err
	}
	httpx.SetETag(c, records.ETag(item))
	done(c, "replaced")
	return at.detail(), nil
}

func (a *API) ifMatch(c *gin.Context) records.Precondition {
	return func(item *records.Item) error { return ifMatch(c, item) }
}

// ifMatch accepts both entity-tags of a record, answered or not: the stored record is the same.
func ifMatch(c *gin.Context, item *records.Item) error {
	err := httpx.IfMatch(c, records.ETag(item))
	if err != nil && httpx.IfMatch(c, unservedTag(item)) == nil {
		return nil
	}
	return err
}

func (a *API) delete(c *gin.Context) (string, error) {
	p, err := read(c, "zone", "view")
	if err != nil {
		return "", err
	}
	at, zone := p.address(c), p.zone("zone")
	if err := p.Err(); err != nil {
		return "", err
	}
	ctx := c.Request.Context()
	revision, err := a.Book.Delete(ctx, at.name, at.rrtype, at.view, func(item *records.Item) error {
		if zone != "" && item.Value.Zone != zone {
			return errs.New(errs.NotFound, "the record %s %s is in the zone %s, not in %s", at.name, at.rrtype, item.Value.Zone, zone)
		}
		return ifMatch(c, item)
	})
	if err != nil {
		return "", err
	}
	if err := a.served(ctx, revision); err != nil {
		return "", err
	}
	done(c, "deleted")
	return at.detail(), nil
}

// filters lists the query parameters that select records.
var filters = []string{"name", "below", "type", "zone", "view"}

func (a *API) deleteAll(c *gin.Context) (string, error) {
	p, err := read(c, filters...)
	if err != nil {
		return "", err
	}
	f := p.filter()
	if err := p.Err(); err != nil {
		return "", err
	}
	if f.Name == "" && f.Below == "" && f.Zone == "" {
		return "", errs.New(errs.Invalid, "say which records to remove with name, below or zone; below=. means all")
	}
	ctx := c.Request.Context()
	n, revision, err := a.Book.DeleteAll(ctx, f)
	if err != nil {
		if n > 0 {
			return "", errs.Wrap(errs.KindOf(err), err, "%d records were removed before the store failed: repeat the request for the rest", n)
		}
		return "", err
	}
	if n > 0 {
		if err := a.served(ctx, revision); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s: %d records", p.Encode(), n), httpx.JSON(c, http.StatusOK, dns.Deleted{Records: n})
}

// list responds with an array of records; a Link header field points to the next page (RFC 8288).
func (a *API) list(c *gin.Context) error {
	p, err := read(c, append([]string{"limit", "after"}, filters...)...)
	if err != nil {
		return err
	}
	f, at := p.filter(), p.Page()
	if err := p.Err(); err != nil {
		return err
	}
	page := a.Book.Page(f, at.After, at.Limit)
	if page.Next != "" {
		p.Next(c, dns.Base+"/rrecord", page.Next)
	}
	list := make([]*dns.Record, len(page.Items))
	for i, item := range page.Items {
		list[i] = a.shown(item)
	}
	return httpx.JSON(c, http.StatusOK, list)
}
