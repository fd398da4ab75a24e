// Package rest is the HTTP interface of mepauth: tokens for clients, through EdgeGallery's interface and OAuth2, and credential
// management for the MEC platform manager.
package rest

import (
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/signing"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/mepauth/grant"
)

// Tokens has the handlers of token requests.
type Tokens struct {
	// Grants decides the requests.
	Grants *grant.Service
}

// SignedPath is the path at which EdgeGallery's agents exchange a signed request for a token.
const SignedPath = "/mep/token"

// Signed returns the handler of SignedPath.
func (t *Tokens) Signed() gin.HandlerFunc { return oauth(t.signed) }

// Mount adds the routes of SignedPath and of the OAuth2 resources.
func (t *Tokens) Mount(r gin.IRoutes) {
	r.POST(SignedPath, t.Signed())
	r.POST("/oauth2/token", oauth(t.token))
	r.POST("/oauth2/revoke", oauth(t.revoke))
	r.POST("/oauth2/introspect", oauth(t.introspect))
}

// oauth adapts a handler and renders its *auth.Error as described in RFC 6749 5.2. Other errors, such as a body that is too
// large, become problem documents.
func oauth(h httpx.Handler) gin.HandlerFunc {
	return httpx.Handle(func(c *gin.Context) error {
		header := c.Writer.Header()
		header["Cache-Control"] = []string{"no-store"}
		header["Pragma"] = []string{"no-cache"}
		err := h(c)
		e, ok := err.(*auth.Error) //nolint:errorlint // the grants never wrap their errors
		if !ok {
			return err
		}
		httpx.Refused(c, e)
		if e.Status == http.StatusUnauthorized {
			c.Header("WWW-Authenticate", `Basic realm="mep"`)
		}
		if e.RetryAfter > 0 {
			c.Header("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
		}
		return httpx.JSON(c, e.Status, e)
	})
}

func originOf(c *gin.Context) grant.Origin {
	return grant.Origin{Address: httpx.ClientAddr(c), RequestID: httpx.RequestID(c)}
}

func badRequest(description string) *auth.Error {
	return &auth.Error{Code: auth.CodeInvalidRequest, Description: description, Status: http.StatusBadRequest}
}

func (t *Tokens) signed(c *gin.Context) error {
	headers := c.Request.Header["Authorization"]
	if len(headers) != 1 {
		return badRequest("send one Authorization header field, with " + signing.Algorithm + " and what belongs to it")
	}
	authorization, err := signing.ParseAuthorization(headers[0])
	if err != nil {
		return badRequest(err.Error())
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	path, query, _ := strings.Cut(c.Request.RequestURI, "?")
	resp, err := t.Grants.Signed(c.Request.Context(), originOf(c), authorization, &signing.Message{
		Method: http.MethodPost, Host: c.Request.Host, Path: path, RawQuery: query, Header: c.Request.Header, Body: body,
	})
	if err != nil {
		return err
	}
	httpx.Raw(c, http.StatusOK, grant.AppendResponse(make([]byte, 0, 1024), resp))
	return nil
}

func readBody(c *gin.Context) ([]byte, error) {
	if c.Request.Body == nil || c.Request.Body == http.NoBody {
		return nil, nil
	}
	return httpx.ReadBody(c)
}

// form is the body of an OAuth2 request, with the client credentials.
type form struct {
	values           url.Values
	clientID, secret string
}

// readForm reads the form and the client credentials (RFC 6749 2.3.1).
func readForm(c *gin.Context) (*form, error) {
	if c.Request.URL.RawQuery != "" {
		return nil, badRequest("parameters belong in the body, never in the URL")
	}
	const want = "application/x-www-form-urlencoded"
	if ct := c.Request.Header.Get("Content-Type"); ct != want {
		if mt, _, err := mime.ParseMediaType(ct); err != nil || mt != want {
			return nil, badRequest("the Content-Type must be " + want)
		}
	}
	body, err := readBody(c)
	if err != nil {
		return nil, err
	}
	f := &form{}
	if f.values, err = url.ParseQuery(string(body)); err != nil {
		return nil, badRequest("the body is not a form")
	}
	for name, v := range f.values {
		if len(v) > 1 {
			return nil, badRequest("the parameter " + strconv.Quote(httpx.ParamName(name)) + " is given more than once")
		}
	}
	return f, f.client(c)
}

func (f *form) client(c *gin.Context) error {
	headers := c.Request.Header["Authorization"]
	inBody := f.values.Has("client_secret")
	switch {
	case len(headers) > 1:
		return badRequest("there are several Authorization header fields")
	case len(headers) == 1 && inBody:
		return badRequest("the client proves who it is in two ways: leave one out")
	case len(headers) == 0:
		f.clientID, f.secret = f.values.Get("client_id"), f.values.Get("client_secret")
		if f.clientID == "" || !inBody {
			return &auth.Error{
				Code: auth.CodeInvalidClient, Status: http.StatusUnauthorized,
				Description: "say who you are, with HTTP Basic or with client_id and client_secret in the form",
			}
		}
		return nil
	}
	user, password, ok := c.Request.BasicAuth()
	if !ok {
		return &auth.Error{
			Code: auth.CodeInvalidClient, Description: "the Authorization header field must be HTTP Basic", Status: http.StatusUnauthorized,
		}
	}
	f.clientID, f.secret = unescaped(user, signing.ValidAccessKeyID), unescaped(password, signing.ValidSecretKey)
	if id := f.values.Get("client_id"); id != "" && id != f.clientID {
		return badRequest("client_id is not the client of the Authorization header field")
	}
	return nil
}

// unescaped reverses the encoding that RFC 6749 2.3.1 requires, unless the client omitted it, as most do.
func unescaped(s string, plain func(string) bool) string {
	if plain(s) {
		return s
	}
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

func (t *Tokens) token(c *gin.Context) error {
	f, err := readForm(c)
	if err != nil {
		return err
	}
	ctx, from := c.Request.Context(), originOf(c)
	scopes := strings.Fields(f.values.Get("scope"))
	var resp *auth.TokenResponse
	switch f.values.Get("grant_type") {
	case auth.GrantClientCredentials:
		resp, err = t.Grants.Secret(ctx, from, f.clientID, f.secret, scopes)
	case auth.GrantRefreshToken:
		resp, err = t.Grants.Refreshed(ctx, from, f.clientID, f.secret, f.values.Get("refresh_token"), scopes)
	case "":
		return badRequest("grant_type is required: client_credentials or refresh_token")
	default:
		return &auth.Error{
			Code: auth.CodeUnsupportedGrantType, Status: http.StatusBadRequest,
			Description: "grant_type must be client_credentials or refresh_token",
		}
	}
	if err != nil {
		return err
	}
	httpx.Raw(c, http.StatusOK, grant.AppendResponse(make([]byte, 0, 1024), resp))
	return nil
}

func (f *form) token() (string, error) {
	token := f.values.Get("token")
	if token == "" {
		return "", badRequest("token is required")
	}
	return token, nil
}

func (t *Tokens) revoke(c *gin.Context) error {
	f, err := readForm(c)
	if err != nil {
		return err
	}
	token, err := f.token()
	if err != nil {
		return err
	}
	if err := t.Grants.Revoke(c.Request.Context(), originOf(c), f.clientID, f.secret, token); err != nil {
		return err
	}
	c.Status(http.StatusOK)
	return nil
}

func (t *Tokens) introspect(c *gin.Context) error {
	f, err := readForm(c)
	if err != nil {
		return err
	}
	token, err := f.token()
	if err != nil {
		return err
	}
	i, err := t.Grants.Introspect(c.Request.Context(), originOf(c), f.clientID, f.secret, token)
	if err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, i)
}
