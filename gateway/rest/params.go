package rest

import (
	"encoding/base64"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
)

// How many elements the page of a list has.
const (
	defaultPage = 100
	maxPage     = 1000
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
			p.faults.Add(httpx.ParamName(name), "is not a query parameter of this resource: there is "+strings.Join(names, ", "))
		case len(values) > 1:
			p.faults.Add(name, "must be given once")
		case values[0] == "":
			p.faults.Add(name, "must not be empty")
		}
	}
	slices.SortFunc(p.faults, func(a, b problem.InvalidParam) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}

func (p *params) err() error { return errs.Params(p.faults) }

// get is the value of a parameter, "" without one.
func (p *params) get(name string) string { return p.query.Get(name) }

func (p *params) fault(name, want string) {
	p.faults.Add(name, "must be "+want+", not "+quote(p.query.Get(name)))
}

// quote shows a value of the request, shortened.
func quote(value string) string {
	const most = 64
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	return strconv.Quote(value)
}

// oneOf is the value of a parameter that has one of a few, and the first of them when it is absent.
func (p *params) oneOf(name string, values ...string) string {
	if !p.query.Has(name) {
		return values[0]
	}
	v := p.query.Get(name)
	if !slices.Contains(values, v) {
		named := slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "" })
		p.fault(name, "one of "+strings.Join(named, ", "))
	}
	return v
}

// moment is the time that a parameter holds (RFC 3339), or otherwise without one.
func (p *params) moment(name string, otherwise time.Time) time.Time {
	if !p.query.Has(name) {
		return otherwise
	}
	t, err := time.Parse(time.RFC3339, p.query.Get(name))
	if err != nil {
		p.fault(name, `a time such as "2026-11-23T01:00:00Z"`)
	}
	return t.UTC()
}

// page is where a list begins, and how many elements of it are wanted.
type page struct {
	after string
	limit int
}

func (p *params) page() page {
	at := page{limit: defaultPage}
	if p.query.Has("limit") {
		n, err := strconv.Atoi(p.query.Get("limit"))
		if err != nil || n < 1 || n > maxPage {
			p.fault("limit", fmt.Sprintf("1 to %d", maxPage))
		}
		at.limit = n
	}
	after, err := base64.RawURLEncoding.DecodeString(p.query.Get("after"))
	if err != nil {
		p.faults.Add("after", "must be what the link of the page before has")
	}
	at.after = string(after)
	return at
}

// some takes a page of what is left of a list, whose elements say where they stand; a header field Link says where it goes on (RFC 8288).
func some[T any](c *gin.Context, p *params, at page, resource string, rest iter.Seq[T], place func(T) string) []T {
	list := make([]T, 0, min(at.limit, defaultPage))
	for element := range rest {
		if len(list) == at.limit {
			next := maps.Clone(p.query)
			next.Set("after", base64.RawURLEncoding.EncodeToString([]byte(place(list[at.limit-1]))))
			c.Header("Link", "<"+gateway.Base+resource+"?"+next.Encode()+`>; rel="next"`)
			break
		}
		list = append(list, element)
	}
	return list
}

// sorted walks over a list in the order of the places, from after one of them on.
func sorted[T any](list []T, after string, place func(T) string) iter.Seq[T] {
	list = slices.SortedFunc(slices.Values(list), func(a, b T) int { return strings.Compare(place(a), place(b)) })
	return func(yield func(T) bool) {
		for _, element := range list {
			if place(element) > after && !yield(element) {
				return
			}
		}
	}
}

// matches walks over the elements that hold.
func matches[T any](all iter.Seq[T], holds func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		for element := range all {
			if holds(element) && !yield(element) {
				return
			}
		}
	}
}

// ifMatch refuses a change that the header fields of the request make depend on another state (RFC 9110 13.1); etag is "" when there is
// nothing yet.
func ifMatch(c *gin.Context, etag string) error {
	if c.Request.Header.Get("If-None-Match") == "*" && etag != "" {
		return errs.New(errs.PreconditionFailed, "If-None-Match does not hold: there is one already, with the entity-tag %s", etag)
	}
	if etag == "" && len(c.Request.Header.Values("If-Match")) > 0 {
		return errs.New(errs.PreconditionFailed, "If-Match does not hold: there is none")
	}
	return httpx.IfMatch(c, etag)
}
