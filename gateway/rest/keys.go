package rest

import (
	"iter"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/query"
)

type faults = problem.InvalidParams

// createKey responds with the key itself, which is not shown again.
func (a *API) createKey(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	var req gateway.APIKeyRequest
	if err := httpx.Body(c, &req); err != nil {
		return "", err
	}
	req.Consumer = identity.CanonicalID(req.Consumer)
	made, err := a.Book.Keys.Create(c.Request.Context(), req)
	if err != nil {
		return "", err
	}
	c.Header("Cache-Control", "no-store")
	c.Header("Location", gateway.Base+"/api_keys/"+made.ID)
	return made.ID + " for " + made.Consumer, httpx.JSON(c, http.StatusCreated, made)
}

func (a *API) listKeys(c *gin.Context) error {
	p, err := query.ReadFilled(c, "consumer", "limit", "after")
	if err != nil {
		return err
	}
	at := p.Page()
	if err := p.Err(); err != nil {
		return err
	}
	keys := a.Book.Keys.Of(identity.CanonicalID(p.Get("consumer")), at.After)
	rest := func(yield func(*gateway.APIKey) bool) {
		for key := range keys {
			if !yield(&key.Info) {
				return
			}
		}
	}
	return httpx.JSON(c, http.StatusOK, some(c, p, at, "/api_keys", iter.Seq[*gateway.APIKey](rest), func(k *gateway.APIKey) string { return k.ID }))
}

func (a *API) getKey(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	key, err := a.Book.Keys.Get(c.Param("id"))
	if err != nil {
		return err
	}
	httpx.SetETag(c, book.ETag(key.Revision))
	return httpx.JSON(c, http.StatusOK, &key.Info)
}

func (a *API) deleteKey(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	key, err := a.Book.Keys.Delete(c.Request.Context(), c.Param("id"))
	if err != nil {
		return "", err
	}
	httpx.NoContent(c)
	return "of " + key.Info.Consumer, nil
}
