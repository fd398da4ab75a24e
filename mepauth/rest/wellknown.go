package rest

import (
	"encoding/json"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
)

// WellKnown describes the service to those who use it or check its tokens.
type WellKnown struct {
	// URL is the base of its resources, Issuer what tokens name as their issuer.
	URL, Issuer string
	// Directory holds the public keys.
	Directory *identity.Directory
}

// Mount adds the resources, which everybody may read.
func (w *WellKnown) Mount(r gin.IRoutes) {
	for path, h := range map[string]httpx.Handler{
		"/.well-known/jwks.json": w.keys, "/.well-known/oauth-authorization-server": w.metadata,
	} {
		r.GET(path, httpx.Handle(h))
		r.HEAD(path, httpx.Handle(h))
	}
	r.GET("/health", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
}

// keysMaxAge is how long a client may keep the keys: less than a new one is published before it signs.
const keysMaxAge = "public, max-age=60"

// keys answers the keys that verify tokens (RFC 7517 5).
func (w *WellKnown) keys(c *gin.Context) error {
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{Keys: []json.RawMessage{}}
	for item := range w.Directory.Keys().Snapshot().All() {
		set.Keys = append(set.Keys, item.Value.Record.JWK)
	}
	if len(set.Keys) == 0 {
		return errs.New(errs.Unavailable, "the signing keys have not been made yet")
	}
	c.Header("Cache-Control", keysMaxAge)
	return httpx.JSON(c, http.StatusOK, set)
}

// metadata answers what the service can do (RFC 8414 3).
func (w *WellKnown) metadata(c *gin.Context) error {
	methods := []string{"client_secret_basic", "client_secret_post"}
	return httpx.JSON(c, http.StatusOK, auth.Metadata{
		Issuer: w.Issuer, TokenEndpoint: w.URL + "/oauth2/token", JWKSURI: w.URL + "/.well-known/jwks.json",
		RevocationEndpoint: w.URL + "/oauth2/revoke", IntrospectionEndpoint: w.URL + "/oauth2/introspect",
		ScopesSupported: identity.Scopes, ResponseTypesSupported: []string{},
		GrantTypesSupported:                       []string{auth.GrantClientCredentials, auth.GrantRefreshToken},
		TokenEndpointAuthMethodsSupported:         methods,
		RevocationEndpointAuthMethodsSupported:    methods,
		IntrospectionEndpointAuthMethodsSupported: methods,
	})
}
