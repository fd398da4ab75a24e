package rest

import (
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/query"
)

// some returns a page of the rest of a list, by the places of the elements. If the list continues, it sets a Link header (RFC 8288).
func some[T any](c *gin.Context, p *query.Params, at query.Page, resource string, rest iter.Seq[T], place func(T) string) []T {
	list := make([]T, 0, min(at.Limit, query.DefaultPage))
	for element := range rest {
		if len(list) == at.Limit {
			p.Next(c, gateway.Base+resource, place(list[at.Limit-1]))
			break
		}
		list = append(list, element)
	}
	return list
}

// whole responds with a page of a list that takes no filters.
func whole[T any](c *gin.Context, resource string, all func() []T, place func(T) string) error {
	p, err := query.ReadFilled(c, "limit", "after")
	if err != nil {
		return err
	}
	at := p.Page()
	if err := p.Err(); err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, some(c, p, at, resource, sorted(all(), at.After, place), place))
}

// sorted returns the elements of a list after the given place, in the order of their places.
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

// matches returns the elements for which holds returns true.
func matches[T any](all iter.Seq[T], holds func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		for element := range all {
			if holds(element) && !yield(element) {
				return
			}
		}
	}
}
