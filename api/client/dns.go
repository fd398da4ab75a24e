package client

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/openmep/mep/api/dns"
)

// DNS manages the platform's DNS server, in particular its records that are independent of the apps' DNS rules. It is safe for
// concurrent use.
//
// A change is in effect at the DNS server when the method that makes it returns without an error.
type DNS struct{ c *Client }

// NewDNS returns a client for the DNS server whose management listener is at baseURL, an absolute http or https URL such as
// "https://mep.example:8081". It sends no request.
func NewDNS(baseURL string, opts ...Option) (*DNS, error) {
	c, err := New(baseURL, opts...)
	if err != nil {
		return nil, err
	}
	return &DNS{c: c}, nil
}

func (d *DNS) request(method string, segments ...string) request {
	return request{method: method, root: dns.Base, path: segments, repeatable: true}
}

// record returns a request for the record with the given name, type and view.
func (d *DNS) record(method, name, rrtype, view string) request {
	r := d.request(method, "rrecord", name, rrtype)
	if view != "" {
		r.query = url.Values{"view": {view}}
	}
	return r
}

// DNSFilter selects records. Its fields are combined by AND; the zero DNSFilter matches all records.
type DNSFilter struct {
	// Name selects records by owner name.
	Name string
	// Below selects records with this owner name or any name below it; "." selects all names.
	Below string
	// Type selects records by type, such as dns.TypeA.
	Type string
	// Zone selects records by zone.
	Zone string
	// View selects records by view, "" being the records for all clients; nil matches any view.
	View *string
}

func (f DNSFilter) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"name": f.Name, "below": f.Below, "type": f.Type, "zone": f.Zone} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if f.View != nil {
		v.Set("view", *f.View)
	}
	return v
}

// Records iterates over the records that match f, ordered by name, type and view. It reads them page by page and may miss
// records that are created or removed meanwhile. The iteration ends with the first error.
func (d *DNS) Records(ctx context.Context, f DNSFilter) iter.Seq2[dns.Record, error] {
	return func(yield func(dns.Record, error) bool) {
		r := d.request(http.MethodGet, "rrecord")
		r.query = f.values()
		r.query.Set("limit", "1000")
		for {
			var page []dns.Record
			ans, err := d.c.do(ctx, r, &page)
			if err != nil {
				yield(dns.Record{}, err)
				return
			}
			for _, rec := range page {
				if !yield(rec, nil) {
					return
				}
			}
			after := nextPage(ans.header)
			if after == "" {
				return
			}
			if after == r.query.Get("after") {
				yield(dns.Record{}, errors.New("the platform's answer names itself as the next page"))
				return
			}
			r.query.Set("after", after)
		}
	}
}

// nextPage returns where the next page of a list begins (RFC 8288), or "" on the last page.
func nextPage(header http.Header) string {
	for _, link := range header.Values("Link") {
		target, params, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if u, err := url.Parse(target); ok && err == nil && strings.Contains(params, `rel="next"`) {
			return u.Query().Get("after")
		}
	}
	return ""
}

// Record reads the record with the given name, type and view; the view "" is that of all clients. IsNotFound holds for the
// error when there is no such record.
func (d *DNS) Record(ctx context.Context, name, rrtype, view string) (*Tagged[dns.Record], error) {
	return tagged[dns.Record](ctx, d.c, d.record(http.MethodGet, name, rrtype, view))
}

// Create creates 1 to dns.MaxBatch records, either all of them or none. The request is not retried. IsConflict holds for the
// error when a record already exists or would coexist with a CNAME.
func (d *DNS) Create(ctx context.Context, recs ...dns.Record) error {
	r := d.request(http.MethodPost, "rrecord")
	r.body, r.repeatable = recs, false
	_, err := d.c.do(ctx, r, nil)
	return err
}

// Replace replaces the record with the name, type and view of rec by rec as a whole and returns the new entity-tag. IsNotFound
// holds for the error when there is no such record.
func (d *DNS) Replace(ctx context.Context, rec dns.Record, pre ...Precondition) (etag string, err error) {
	r := d.record(http.MethodPut, rec.Name, rec.Type, rec.View)
	r.body = rec
	r.apply(pre)
	ans, err := d.c.do(ctx, r, nil)
	if err != nil {
		return "", err
	}
	return ans.header.Get("ETag"), nil
}

// Delete removes the record with the given name, type and view; the view "" is that of all clients. IsNotFound holds for the
// error when there was no such record; a retry that finds the record gone succeeds.
func (d *DNS) Delete(ctx context.Context, name, rrtype, view string, pre ...Precondition) error {
	return d.c.remove(ctx, d.record(http.MethodDelete, name, rrtype, view), pre)
}

// DeleteAll removes the records that match f and returns how many the last attempt removed. f must set Name, Below or Zone.
func (d *DNS) DeleteAll(ctx context.Context, f DNSFilter) (int, error) {
	r := d.request(http.MethodDelete, "rrecord")
	r.query = f.values()
	var gone dns.Deleted
	_, err := d.c.do(ctx, r, &gone)
	return gone.Records, err
}

// Zones lists the zones that the DNS server is authoritative for.
func (d *DNS) Zones(ctx context.Context) ([]dns.Zone, error) {
	return list[dns.Zone](ctx, d.c, d.request(http.MethodGet, "zones"))
}

// Upstreams lists the upstream DNS servers that queries are forwarded to.
func (d *DNS) Upstreams(ctx context.Context) ([]dns.Upstream, error) {
	return list[dns.Upstream](ctx, d.c, d.request(http.MethodGet, "upstreams"))
}

// Flush removes the cache entries of a name and, if below is true, of all names below it. An empty name flushes all entries.
// Flush returns the number of removed entries.
func (d *DNS) Flush(ctx context.Context, name string, below bool) (int, error) {
	r := d.request(http.MethodPost, "cache", "flush")
	switch {
	case name == "":
	case below:
		r.query = url.Values{"below": {name}}
	default:
		r.query = url.Values{"name": {name}}
	}
	var flushed dns.Flushed
	_, err := d.c.do(ctx, r, &flushed)
	return flushed.Entries, err
}

// Trace explains how the DNS server answers a query from client for a name and a type, where "" is A. The zero client stands
// for the address of the caller.
func (d *DNS) Trace(ctx context.Context, name, rrtype string, client netip.Addr) (*dns.Trace, error) {
	r := d.request(http.MethodGet, "trace")
	r.query = url.Values{"name": {name}}
	if rrtype != "" {
		r.query.Set("type", rrtype)
	}
	if client.IsValid() {
		r.query.Set("client", client.String())
	}
	t := &dns.Trace{}
	if _, err := d.c.do(ctx, r, t); err != nil {
		return nil, err
	}
	return t, nil
}
