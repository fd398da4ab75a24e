// Package query reads the query parameters of requests strictly, and divides long lists into pages.
//
// Unknown parameters are refused, because a misspelt one would otherwise change what a request means. All faults are reported at once.
package query

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
)

// Params holds the query parameters of a request, and its faults.
type Params struct {
	// Faults lists the faults of the query; callers may add others, such as those of the path.
	Faults problem.InvalidParams
	values url.Values
}

// Read reads the query parameters. Only those named are known, and each may occur once. Faults are sorted by name; the error, of the
// kind errs.Invalid, is for a query that cannot be parsed at all.
func Read(c *gin.Context, names ...string) (*Params, error) {
	values, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the query is malformed")
	}
	p := &Params{values: values}
	known := "there is none"
	if len(names) > 0 {
		known = "there is " + strings.Join(names, ", ")
	}
	for name, values := range values {
		switch {
		case !slices.Contains(names, name):
			p.Faults.Add(httpx.ParamName(name), "is not a query parameter of this resource: "+known)
		case len(values) > 1:
			p.Faults.Add(name, "must be given once")
		}
	}
	p.sort()
	return p, nil
}

// ReadFilled is like Read, except that no parameter may be empty.
func ReadFilled(c *gin.Context, names ...string) (*Params, error) {
	p, err := Read(c, names...)
	if err != nil {
		return nil, err
	}
	for name, values := range p.values {
		if slices.Contains(names, name) && len(values) == 1 && values[0] == "" {
			p.Faults.Add(name, "must not be empty")
		}
	}
	p.sort()
	return p, nil
}

func (p *Params) sort() {
	slices.SortFunc(p.Faults, func(a, b problem.InvalidParam) int { return strings.Compare(a.Name, b.Name) })
}

// Err returns the faults found so far as one error of the kind errs.Invalid; nil if there are none.
func (p *Params) Err() error { return errs.Params(p.Faults) }

// Has reports whether a parameter is present, even if empty.
func (p *Params) Has(name string) bool { return p.values.Has(name) }

// Get returns the value of a parameter; "" if it is absent.
func (p *Params) Get(name string) string { return p.values.Get(name) }

// Encode returns the encoded query, sorted by name.
func (p *Params) Encode() string { return p.values.Encode() }

// Refuse adds the fault that a parameter must be want, not value.
func (p *Params) Refuse(name, want, value string) {
	p.Faults.Add(name, "must be "+want+", not "+Quote(value))
}

// Quote returns a value of the request, quoted and shortened.
func Quote(value string) string {
	const most = 64
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	return strconv.Quote(value)
}

// OneOf returns the value of a parameter that must be one of values, or the first of them if it is absent. The first may be "",
// which no message suggests.
func (p *Params) OneOf(name string, values ...string) string {
	if !p.Has(name) {
		return values[0]
	}
	v := p.Get(name)
	if !slices.Contains(values, v) {
		named := slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "" })
		p.Refuse(name, "one of "+strings.Join(named, ", "), v)
	}
	return v
}

// Moment returns the time (RFC 3339) in a parameter, in UTC, or otherwise if it is absent.
func (p *Params) Moment(name string, otherwise time.Time) time.Time {
	if !p.Has(name) {
		return otherwise
	}
	t, err := time.Parse(time.RFC3339, p.Get(name))
	if err != nil {
		p.Refuse(name, `a time such as "2026-11-23T01:00:00Z"`, p.Get(name))
	}
	return t.UTC()
}
