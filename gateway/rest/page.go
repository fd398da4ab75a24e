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

// some takes a page of what is left of a list, whose elements say where they stand; a header field Link says where it goes on (RFC 8288).
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

// whole answers a page of a list of which nothing else is asked.
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
