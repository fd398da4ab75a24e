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

// WellKnown describes the service to its clients and to those who verify its tokens.
type WellKnown struct {
	// URL is the base URL of the resources, Issuer the issuer of the tokens.
	URL, Issuer string
	// Directory holds the public keys.
	Directory *identity.Directory
}

// Mount adds the routes, which need no authentication.
func (w *WellKnown) Mount(r gin.IRoutes) {
	for path, h := range map[string]httpx.Handler{
		"/.well-known/jwks.json": w.keys, "/.well-known/oauth-authorization-server": w.metadata,
	} {
		r.GET(path, httpx.Handle(h))
		r.HEAD(path, httpx.Handle(h))
	}
	r.GET("/health", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
}

// keysMaxAge lets clients cache the keys for a minute: less than the default time a new key is
// published before it signs.
const keysMaxAge = "public, max-age=60"

// keys responds with the keys that verify tokens (RFC 7517 5).
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

// metadata responds with the capabilities of the service (RFC 8414 3).
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
