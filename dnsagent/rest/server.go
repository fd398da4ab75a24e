package rest

import (
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/kit/httpx"
)

func (a *API) zones(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, list(a.Server.Zones()))
}

func (a *API) upstreams(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, list(a.Server.Upstreams()))
}

// list turns nil into an empty slice, so that JSON has an empty array instead of null.
func list[T any](elements []T) []T {
	if elements == nil {
		return []T{}
	}
	return elements
}

// flush removes the cache entries of a name, of a name and all names below it, or of all names.
func (a *API) flush(c *gin.Context) (string, error) {
	p, err := read(c, "name", "below")
	if err != nil {
		return "", err
	}
	name, below := p.asked("name"), p.asked("below")
	if p.Has("name") && p.Has("below") {
		p.Faults.Add("below", "must not be given together with name")
	}
	if err := p.Err(); err != nil {
		return "", err
	}
	var what string
	var n int
	switch {
	case below != "" && below != ".":
		what = "below " + below
		n, err = a.Server.Flush(below, true)
	case name != "":
		what = name
		n, err = a.Server.Flush(name, false)
	default:
		what = "all"
		n, err = a.Server.Flush("", true)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: %d entries", what, n), httpx.JSON(c, http.StatusOK, dns.Flushed{Entries: n})
}

func (a *API) trace(c *gin.Context) error {
	p, err := read(c, "name", "type", "client")
	if err != nil {
		return err
	}
	req := dns.TraceRequest{Name: p.asked("name"), Type: p.askedType(), Client: p.client(c)}
	if !p.Has("name") {
		p.Faults.Add("name", "is required: it says what is asked for")
	}
	if err := p.Err(); err != nil {
		return err
	}
	t, err := a.Server.Trace(c.Request.Context(), req)
	if err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, t)
}
