package rest

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"
	rr "github.com/miekg/dns"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/dnsagent/wire"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
)

// params reads parameters of a request and collects what is wrong with them.
type params struct {
	query  url.Values
	faults problem.InvalidParams
}

// query reads the query parameters, of which each of those named may be there once.
func query(c *gin.Context, names ...string) (*params, error) {
	q, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the query is malformed")
	}
	p := &params{query: q}
	for name, values := range q {
		switch {
		case !slices.Contains(names, name):
			known := "there is none"
			if len(names) > 0 {
				known = "there is " + strings.Join(names, ", ")
			}
			p.faults.Add(httpx.ParamName(name), "is not a query parameter of this resource: "+known)
		case len(values) > 1:
			p.faults.Add(name, "must be given once")
		}
	}
	slices.SortFunc(p.faults, func(a, b problem.InvalidParam) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}

func (p *params) err() error { return errs.Params(p.faults) }

func (p *params) fault(name, want, value string) {
	p.faults.Add(name, "must be "+want+", not "+quote(value))
}

// quote shows a value of the request, shortened.
func quote(value string) string {
	const most = 64
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	return strconv.Quote(value)
}

// record is the name of a record that a parameter holds, "" without one.
func (p *params) record(param string) string {
	if !p.query.Has(param) {
		return ""
	}
	name, ok := dns.CanonicalName(p.query.Get(param), true)
	if !ok {
		p.fault(param, `a domain name, whose first label may be "*"`, p.query.Get(param))
	}
	return name
}

// zone is the zone of a record that a parameter holds, "" without one.
func (p *params) zone(param string) string {
	if !p.query.Has(param) {
		return ""
	}
	zone, ok := dns.CanonicalZone(p.query.Get(param))
	if !ok {
		p.fault(param, `a domain name or "."`, p.query.Get(param))
	}
	return zone
}

// view is the view that the parameter of that name holds, nil without one.
func (p *params) view() *string {
	const param = "view"
	if !p.query.Has(param) {
		return nil
	}
	view := p.query.Get(param)
	if view != "" && !dns.ValidView(view) {
		p.fault(param, "the name of a view", view)
	}
	return &view
}

// filter reads the parameters that select records. There must be none of them that a handler does not take.
func (p *params) filter() records.Filter {
	f := records.Filter{Name: p.record("name"), Below: p.zone("below"), Zone: p.zone("zone"), View: p.view()}
	if p.query.Has("type") {
		if f.Type = p.query.Get("type"); !dns.ValidType(f.Type) {
			p.fault("type", "one of "+strings.Join(dns.Types, ", "), f.Type)
		}
	}
	return f
}

// asked is a name that may be asked for, in lower case with the dot at its end; "" without one. That is more than what a record may
// be called.
func (p *params) asked(param string) string {
	if !p.query.Has(param) {
		return ""
	}
	name, err := wire.ParseName(p.query.Get(param))
	if err != nil {
		p.fault(param, "a domain name", p.query.Get(param))
		return ""
	}
	return name.String()
}

// askedType is a type that may be asked for, A without one.
func (p *params) askedType() string {
	const param = "type"
	if !p.query.Has(param) {
		return dns.TypeA
	}
	rrtype := strings.ToUpper(p.query.Get(param))
	if _, known := rr.StringToType[rrtype]; known && rrtype != "NONE" && rrtype != "RESERVED" {
		return rrtype
	}
	digits, generic := strings.CutPrefix(rrtype, "TYPE")
	n, err := strconv.ParseUint(digits, 10, 16)
	if !generic || err != nil || n == 0 {
		p.fault(param, "a type of records such as A, or TYPE and a number", p.query.Get(param))
	}
	return rr.Type(uint16(n)).String()
}

// client is the address that a parameter holds, that of the caller without one.
func (p *params) client(c *gin.Context) string {
	const param = "client"
	if !p.query.Has(param) {
		return httpx.ClientAddr(c).String()
	}
	a, err := netip.ParseAddr(p.query.Get(param))
	if err != nil || a.Zone() != "" {
		p.fault(param, "an IPv4 or IPv6 address", p.query.Get(param))
	}
	return a.Unmap().String()
}

// limit is how many elements a page has.
func (p *params) limit() int {
	const param = "limit"
	if !p.query.Has(param) {
		return dns.DefaultPage
	}
	n, err := strconv.Atoi(p.query.Get(param))
	if err != nil || n < 1 || n > dns.MaxPage {
		p.fault(param, fmt.Sprintf("1 to %d", dns.MaxPage), p.query.Get(param))
	}
	return n
}

// path is the name and type that a path names.
func (p *params) path(c *gin.Context) (name, rrtype string) {
	name, ok := dns.CanonicalName(c.Param("fqdn"), true)
	if !ok {
		p.fault("fqdn", `a domain name, whose first label may be "*"`, c.Param("fqdn"))
	}
	if rrtype = c.Param("rrtype"); !dns.ValidType(rrtype) {
		p.fault("rrtype", "one of "+strings.Join(dns.Types, ", "), rrtype)
	}
	return name, rrtype
}
