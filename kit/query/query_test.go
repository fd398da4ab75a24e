package query_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/query"
)

func request(rawQuery string) (*gin.Context, *httptest.ResponseRecorder) {
	w := httptest.NewRecorder()
	c, _ := gin.CreateTestContext(w)
	c.Request = httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	c.Request.URL.RawQuery = rawQuery
	return c, w
}

func TestParametersThatAreRefused(t *testing.T) {
	for name, x := range map[string]struct {
		query string
		want  []string // by Read
		empty []string // by ReadFilled besides
	}{
		"none":              {query: ""},
		"those there are":   {query: "a=1&b=2"},
		"unknown":           {query: "c=1&a=1&B=", want: []string{"B is not a query parameter of this resource: there is a, b", "c is not a query parameter of this resource: there is a, b"}},
		"twice":             {query: "a=1&b=1&a=1", want: []string{"a must be given once"}},
		"no value":          {query: "a=&b", empty: []string{"a must not be empty", "b must not be empty"}},
		"what is no name":   {query: "x%0Ay=1", want: []string{"… is not a query parameter of this resource: there is a, b"}},
		"in order of names": {query: "b=&a=1&a=2&A=", want: []string{"A is not a query parameter of this resource: there is a, b", "a must be given once"}, empty: []string{"b must not be empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := request(x.query)
			p, err := query.Read(c, "a", "b")
			require.NoError(t, err)
			require.Equal(t, strings.Join(x.want, "; "), p.Faults.Error())
			p, err = query.ReadFilled(c, "a", "b")
			require.NoError(t, err)
			require.Equal(t, strings.Join(append(x.want, x.empty...), "; "), p.Faults.Error())
			if len(x.want)+len(x.empty) == 0 {
				require.NoError(t, p.Err())
			} else {
				require.ErrorIs(t, p.Err(), errs.Invalid)
			}
		})
	}
	for _, malformed := range []string{"a=%", "a;b"} {
		c, _ := request(malformed)
		_, err := query.Read(c, "a")
		require.ErrorIs(t, err, errs.Invalid)
		_, err = query.ReadFilled(c, "a")
		require.ErrorIs(t, err, errs.Invalid)
	}
	c, _ := request("a=1")
	p, err := query.Read(c)
	require.NoError(t, err)
	require.Equal(t, "a is not a query parameter of this resource: there is none", p.Faults.Error())
}

func TestValues(t *testing.T) {
	at := time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	c, _ := request("kind=b&empty=&odd=x&from=2026-11-23T05:00:00%2B01:00&to=yesterday")
	p, err := query.Read(c, "kind", "empty", "odd", "from", "to", "absent")
	require.NoError(t, err)
	require.True(t, p.Has("empty"))
	require.Empty(t, p.Get("empty"))
	require.False(t, p.Has("absent"))
	require.Equal(t, "b", p.OneOf("kind", "a", "b"))
	require.Equal(t, "a", p.OneOf("absent", "a", "b"))
	require.Equal(t, at, p.Moment("from", time.Time{}))
	require.Equal(t, at, p.Moment("absent", at))
	require.Equal(t, "empty=&from=2026-11-23T05%3A00%3A00%2B01%3A00&kind=b&odd=x&to=yesterday", p.Encode())
	require.NoError(t, p.Err())

	p.OneOf("odd", "", "a", "b")
	p.Moment("to", at)
	require.Equal(t, `odd must be one of a, b, not "x"; to must be a time such as "2026-11-23T01:00:00Z", not "yesterday"`, p.Faults.Error())
}

func TestAValueIsShownShortened(t *testing.T) {
	require.Equal(t, `"a\nb"`, query.Quote("a\nb"))
	require.Equal(t, `"`+strings.Repeat("x", 64)+`"`, query.Quote(strings.Repeat("x", 64)))
	require.Equal(t, `"`+strings.Repeat("x", 63)+`…"`, query.Quote(strings.Repeat("x", 63)+"ä"), "no half of a character")
}

func TestPages(t *testing.T) {
	for name, x := range map[string]struct {
		query string
		want  query.Page
		fault string
	}{
		"the first":       {"", query.Page{Limit: query.DefaultPage}, ""},
		"a small one":     {"limit=1", query.Page{Limit: 1}, ""},
		"the largest":     {"limit=1000", query.Page{Limit: query.MaxPage}, ""},
		"another":         {"after=YQBi", query.Page{After: "a\x00b", Limit: query.DefaultPage}, ""},
		"nothing":         {"limit=0", query.Page{}, `limit must be 1 to 1000, not "0"`},
		"too large a one": {"limit=1001", query.Page{}, `limit must be 1 to 1000, not "1001"`},
		"no number":       {"limit=all", query.Page{}, `limit must be 1 to 1000, not "all"`},
		"an invented one": {"after=%21", query.Page{}, "after must be what the link of the page before has"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := request(x.query)
			p, err := query.Read(c, "limit", "after")
			require.NoError(t, err)
			got := p.Page()
			require.Equal(t, x.fault, p.Faults.Error())
			if x.fault == "" {
				require.Equal(t, x.want, got)
			}
		})
	}
}

func TestTheLinkLeadsToTheNextPage(t *testing.T) {
	c, w := request("limit=2&kind=a%26b")
	p, err := query.Read(c, "limit", "after", "kind")
	require.NoError(t, err)
	const place = "zone/\x00name"
	p.Next(c, "/things", place)
	link := w.Header().Get("Link")
	rest, ok := strings.CutPrefix(link, "</things?")
	require.True(t, ok, link)
	raw, ok := strings.CutSuffix(rest, `>; rel="next"`)
	require.True(t, ok, link)
	c, _ = request(raw)
	next, err := query.Read(c, "limit", "after", "kind")
	require.NoError(t, err)
	require.Equal(t, query.Page{After: place, Limit: 2}, next.Page())
	require.Equal(t, "a&b", next.Get("kind"))
	require.False(t, p.Has("after"), "the query itself stays")
}

// FuzzPage checks that any page that is accepted is within its bounds, and that the link to the next one is accepted too.
func FuzzPage(f *testing.F) {
	for _, q := range []string{"", "limit=7&after=YQBi&kind=x", "limit=&after=%", "a;b", "kind=%FF"} {
		f.Add(q, "place")
	}
	f.Fuzz(func(t *testing.T, raw, place string) {
		c, w := request(raw)
		p, err := query.Read(c, "limit", "after", "kind")
		if err != nil {
			return
		}
		at := p.Page()
		if p.Err() != nil {
			return
		}
		require.LessOrEqual(t, at.Limit, query.MaxPage)
		require.Positive(t, at.Limit)
		p.Next(c, "/", place)
		link := strings.TrimSuffix(strings.TrimPrefix(w.Header().Get("Link"), "</?"), `>; rel="next"`)
		c, _ = request(link)
		p, err = query.Read(c, "limit", "after", "kind")
		require.NoError(t, err)
		require.Equal(t, query.Page{After: place, Limit: at.Limit}, p.Page())
		require.NoError(t, p.Err())
	})
}
