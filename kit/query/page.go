package query

import (
	"encoding/base64"
	"fmt"
	"maps"
	"strconv"

	"github.com/gin-gonic/gin"
)

// How many elements a page has when the request does not say, and at most.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

// Page is which part of a list is wanted.
type Page struct {
	// After is the place of the element before the first one, "" for the beginning.
	After string
	// Limit is how many elements there are at most, 1 to MaxPage.
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

// Next sends a header field Link to the page after this one (RFC 8288), whose last element has the place. path is that of the list.
func (p *Params) Next(c *gin.Context, path, place string) {
	next := maps.Clone(p.values)
	next.Set("after", base64.RawURLEncoding.EncodeToString([]byte(place)))
	c.Header("Link", "<"+path+"?"+next.Encode()+`>; rel="next"`)
}
