package rest

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"
	rr "github.com/miekg/dns"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/dnsagent/wire"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/query"
)

// params are the query parameters of a request.
type params struct{ *query.Params }

// read reads the query parameters. Each of names may be given once.
func read(c *gin.Context, names ...string) (params, error) {
	p, err := query.Read(c, names...)
	return params{p}, err
}

// record returns the name of a record from a parameter, "" without one.
func (p params) record(param string) string {
	if !p.Has(param) {
		return ""
	}
	name, ok := dns.CanonicalName(p.Get(param), true)
	if !ok {
		p.Refuse(param, `a domain name, whose first label may be "*"`, p.Get(param))
	}
	return name
}

// zone returns the zone of a record from a parameter, "" without one.
func (p params) zone(param string) string {
	if !p.Has(param) {
		return ""
	}
	zone, ok := dns.CanonicalZone(p.Get(param))
	if !ok {
		p.Refuse(param, `a domain name or "."`, p.Get(param))
	}
	return zone
}

// view returns the view from the parameter view, nil without one.
func (p params) view() *string {
	const param = "view"
	if !p.Has(param) {
		return nil
	}
	view := p.Get(param)
	if view != "" && !dns.ValidView(view) {
		p.Refuse(param, "the name of a view", view)
	}
	return &view
}

// filter reads the parameters that select records. read has refused those that the handler does not support.
func (p params) filter() records.Filter {
	f := records.Filter{Name: p.record("name"), Below: p.zone("below"), Zone: p.zone("zone"), View: p.view()}
	if p.Has("type") {
		if f.Type = p.Get("type"); !dns.ValidType(f.Type) {
			p.Refuse("type", "one of "+strings.Join(dns.Types, ", "), f.Type)
		}
	}
	return f
}

// asked returns the name of a query from a parameter, in lower case with a trailing dot; "" without one. More names are allowed
// than for records.
func (p params) asked(param string) string {
	if !p.Has(param) {
		return ""
	}
	name, err := wire.ParseName(p.Get(param))
	if err != nil {
		p.Refuse(param, "a domain name", p.Get(param))
		return ""
	}
	return name.String()
}

// askedType returns the type of a query, A without one.
func (p params) askedType() string {
	const param = "type"
	if !p.Has(param) {
		return dns.TypeA
	}
	rrtype := strings.ToUpper(p.Get(param))
	if _, known := rr.StringToType[rrtype]; known && rrtype != "NONE" && rrtype != "RESERVED" {
		return rrtype
	}
	digits, generic := strings.CutPrefix(rrtype, "TYPE")
	n, err := strconv.ParseUint(digits, 10, 16)
	if !generic || err != nil || n == 0 {
		p.Refuse(param, "a type of records such as A, or TYPE and a number", p.Get(param))
	}
	if n == uint64(rr.TypeReserved) { // its name in the library is no type
		return rrtype
	}
	return rr.Type(uint16(n)).String()
}

// client returns the address from a parameter, or that of the caller without one.
func (p params) client(c *gin.Context) string {
	const param = "client"
	if !p.Has(param) {
		return httpx.ClientAddr(c).String()
	}
	a, err := netip.ParseAddr(p.Get(param))
	if err != nil || a.Zone() != "" {
		p.Refuse(param, "an IPv4 or IPv6 address", p.Get(param))
	}
	return a.Unmap().String()
}

// path returns the name and type from the request's path.
func (p params) path(c *gin.Context) (name, rrtype string) {
	name, ok := dns.CanonicalName(c.Param("fqdn"), true)
	if !ok {
		p.Refuse("fqdn", `a domain name, whose first label may be "*"`, c.Param("fqdn"))
	}
	if rrtype = c.Param("rrtype"); !dns.ValidType(rrtype) {
		p.Refuse("rrtype", "one of "+strings.Join(dns.Types, ", "), rrtype)
	}
	return name, rrtype
}
