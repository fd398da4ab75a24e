package query

import (
	"encoding/base64"
	"fmt"
	"maps"
	"strconv"

	"github.com/gin-gonic/gin"
)

// How many elements a page has by default, and at most.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

// Page selects a part of a list.
type Page struct {
	// After is the place of the element before the first one; "" for the beginning.
	After string
	// Limit is the maximum number of elements, 1 to MaxPage.
	Limit int
}

// Page reads the parameters limit and after.
func (p *Params) Page() Page {
	const limit, after = "limit", "after"
	at := Page{Limit: DefaultPage}
	if p.Has(limit) {
		n, err := strconv.Atoi(p.Get(limit))
		if err != nil || n < 1 || n > MaxPage {
			p.Refuse(limit, fmt.Sprintf("1 to %d", MaxPage), p.Get(limit))
		}
		at.Limit = n
	}
	place, err := base64.RawURLEncoding.DecodeString(p.Get(after))
	if err != nil {
		p.Faults.Add(after, "must be what the link of the page before has")
	}
	at.After = string(place)
	return at
}

// Next sets the header field Link for the page after this one (RFC 8288); path is the list's, and place that of this page's last element.
func (p *Params) Next(c *gin.Context, path, place string) {
	next := maps.Clone(p.values)
	next.Set("after", base64.RawURLEncoding.EncodeToString([]byte(place)))
	c.Header("Link", "<"+path+"?"+next.Encode()+`>; rel="next"`)
}
