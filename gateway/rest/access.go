package rest

import (
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/query"
)

// access has the handlers of access requests, for one way to identify the caller.
type access struct {
	api *API
	who func(*gin.Context) (subject string, manager bool)
}

// party returns the party that makes the request, or an error of kind errs.Unauthenticated if it is anonymous.
func (x *access) party(c *gin.Context) (book.Party, error) {
	var who book.Party
	who.Subject, who.Manager = x.who(c)
	if who.Subject == "" && !who.Manager {
		c.Header("WWW-Authenticate", `Bearer realm="mep", scope="mp1"`)
		return who, errs.New(errs.Unauthenticated, "access requests are for callers that say who they are: send a token or an API key")
	}
	return who, nil
}

// consumer returns the consumer that an application is for.
func consumer(who book.Party, app *gateway.AccessApplication) (string, error) {
	wanted := identity.CanonicalID(app.Consumer)
	switch {
	case who.Manager && wanted == "":
		var f faults
		f.Add("consumer", "is required: a manager applies for somebody")
		return "", errs.Params(f)
	case who.Manager:
		return wanted, nil
	case wanted != "" && wanted != who.Subject:
		return "", errs.New(errs.Forbidden, "consumer must be the caller or absent: a manager alone applies for others")
	}
	return who.Subject, nil
}

func (x *access) apply(c *gin.Context) (string, error) {
	who, err := x.party(c)
	if err != nil {
		return "", err
	}
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	var app gateway.AccessApplication
	if err := httpx.Body(c, &app); err != nil {
		return "", err
	}
	applicant, err := consumer(who, &app)
	if err != nil {
		return "", err
	}
	r, err := x.api.Book.Access.Apply(c.Request.Context(), applicant, app)
	if err != nil {
		return "", err
	}
	httpx.SetETag(c, r.ETag())
	c.Header("Location", gateway.Base+"/access_requests/"+r.Info.ID)
	return r.Info.ID + ": " + what(r), httpx.JSON(c, http.StatusCreated, &r.Info)
}

// what describes a request in the audit log.
func what(r *book.Request) string {
	return fmt.Sprintf("%s for %s of %s", r.Info.Consumer, query.Quote(r.Info.SerName), r.Info.Owner)
}

func (x *access) list(c *gin.Context) error {
	who, err := x.party(c)
	if err != nil {
		return err
	}
	p, err := query.ReadFilled(c, "state", "consumer", "owner", "limit", "after")
	if err != nil {
		return err
	}
	state := p.OneOf("state", "", string(gateway.AccessPending), string(gateway.AccessGranted), string(gateway.AccessRefused))
	f := book.Filter{
		State: gateway.AccessState(state), Consumer: identity.CanonicalID(p.Get("consumer")), Owner: identity.CanonicalID(p.Get("owner")),
	}
	at := p.Page()
	if err := p.Err(); err != nil {
		return err
	}
	some := some(c, p, at, "/access_requests", x.api.Book.Access.List(f, who, at.After), (*book.Request).Place)
	list := make([]*gateway.AccessRequest, len(some))
	for i, r := range some {
		list[i] = &r.Info
	}
	return httpx.JSON(c, http.StatusOK, list)
}

func (x *access) get(c *gin.Context) error {
	who, err := x.party(c)
	if err != nil {
		return err
	}
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	r, err := x.api.Book.Access.Get(c.Param("id"), who)
	if err != nil {
		return err
	}
	if httpx.NotModified(c, r.ETag()) {
		return nil
	}
	httpx.SetETag(c, r.ETag())
	return httpx.JSON(c, http.StatusOK, &r.Info)
}

func (x *access) decide(c *gin.Context) (string, error) {
	who, err := x.party(c)
	if err != nil {
		return "", err
	}
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	var decision gateway.AccessDecision
	if err := httpx.Body(c, &decision); err != nil {
		return "", err
	}
	r, err := x.api.Book.Access.Decide(c.Request.Context(), c.Param("id"), who, decision, func(r *book.Request) error { return ifMatch(c, r.ETag()) })
	if err != nil {
		return "", err
	}
	httpx.SetETag(c, r.ETag())
	return string(r.Info.State) + ": " + what(r), httpx.JSON(c, http.StatusOK, &r.Info)
}

func (x *access) delete(c *gin.Context) (string, error) {
	who, err := x.party(c)
	if err != nil {
		return "", err
	}
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	r, err := x.api.Book.Access.Delete(c.Request.Context(), c.Param("id"), who, func(r *book.Request) error { return ifMatch(c, r.ETag()) })
	if err != nil {
		return "", err
	}
	httpx.NoContent(c)
	return what(r), nil
}
