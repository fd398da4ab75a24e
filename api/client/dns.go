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

// DNS manages the platform's DNS server: records that are answered besides the DNS rules of apps. It is safe for concurrent use.
//
// A change that succeeds is in force: the DNS server answers by it.
type DNS struct{ c *Client }

// NewDNS makes a client for the DNS server whose management listener is at baseURL, an absolute http or https URL such as
// "https://mep.example:8081". It sends nothing yet.
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

// record starts a request for the record of a name, type and view.
func (d *DNS) record(method, name, rrtype, view string) request {
	r := d.request(method, "rrecord", name, rrtype)
	if view != "" {
		r.query = url.Values{"view": {view}}
	}
	return r
}

// DNSFilter selects records. Its fields are combined by AND; the zero DNSFilter matches all.
type DNSFilter struct {
	// Name is the name of records.
	Name string
	// Below selects records of a name and of all names below it; "." is above all.
	Below string
	// Type is a type of records, such as dns.TypeA.
	Type string
	// Zone is the zone of records.
	Zone string
	// View is the view of records, "" for the records of everybody; nil matches both.
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

// Records walks over the records that match f, in the order of their names, types and views. It asks for them page by page: those that
// come and go meanwhile may be missing. It ends with the first error.
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

// nextPage is where a list goes on (RFC 8288), "" when this was all of it.
func nextPage(header http.Header) string {
	for _, link := range header.Values("Link") {
		target, params, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if u, err := url.Parse(target); ok && err == nil && strings.Contains(params, `rel="next"`) {
			return u.Query().Get("after")
		}
	}
	return ""
}

// Record reads the record of a name, type and view, which is "" for the record of everybody. IsNotFound holds for the error when there
// is none.
func (d *DNS) Record(ctx context.Context, name, rrtype, view string) (*Tagged[dns.Record], error) {
	return tagged[dns.Record](ctx, d.c, d.record(http.MethodGet, name, rrtype, view))
}

// Create makes new records, all of them or none; there are 1 to dns.MaxBatch. It is not repeated. IsConflict holds for the error when
// one exists already or would stand beside a CNAME.
func (d *DNS) Create(ctx context.Context, recs ...dns.Record) error {
	r := d.request(http.MethodPost, "rrecord")
	r.body, r.repeatable = recs, false
	_, err := d.c.do(ctx, r, nil)
	return err
}

// Replace puts rec, as a whole, in the place of the record of its name, type and view, and returns its new entity-tag. IsNotFound
// holds for the error when there is none.
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

// Delete removes the record of a name, type and view, which is "" for the record of everybody. It is not an error when a repeated
// request finds none. IsNotFound holds for the error when there was none.
func (d *DNS) Delete(ctx context.Context, name, rrtype, view string, pre ...Precondition) error {
	return d.c.remove(ctx, d.record(http.MethodDelete, name, rrtype, view), pre)
}

// DeleteAll removes the records that match f, in which Name, Below or Zone must be set, and returns how many the last request removed.
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

// Upstreams lists the DNS servers that questions are forwarded to.
func (d *DNS) Upstreams(ctx context.Context) ([]dns.Upstream, error) {
	return list[dns.Upstream](ctx, d.c, d.request(http.MethodGet, "upstreams"))
}

// Flush removes what the cache of the DNS server holds of a name or, if below is true, of a name and all names below it; of all names
// when name is "". It returns how many entries that were.
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

// Trace explains what the DNS server answers a client that asks for a name and a type; "" is A. The client is the caller when the
// address is the zero one.
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
