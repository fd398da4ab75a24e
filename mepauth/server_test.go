package mepauth

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/signing"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/node"
	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/kit/telemetry"
)

// service is a token service on a real etcd, with its handler.
type service struct {
	*Server
	dir     string
	env     *daemon.Env
	handler http.Handler
	manager string // token with the scope mm5
	log     *written
}

func start(t *testing.T, etcd *etcdtest.Server, dir string, flags map[string]string) *service {
	t.Helper()
	cfg := new(DaemonConfig)
	given := map[string]string{
		"auth-listen": "127.0.0.1:0", "data-dir": dir, "etcd-endpoints": "unused", "auth-rate-source": "0", "auth-rate-key": "0",
	}
	maps.Copy(given, flags)
	require.NoError(t, settings.Load(cfg, settings.Sources{Flags: given}, nil))
	require.NoError(t, cfg.Common.Validate())
	require.NoError(t, cfg.Auth.Validate(&cfg.Common))
	s := &service{dir: dir, log: new(written)}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	var err error
	s.env, err = daemon.NewEnv(t.Context(), &cfg.Common, "mepauth", []string{cfg.Auth.Listen}, log, telemetry.NewRegistry("test"))
	require.NoError(t, err)
	n, err := node.New(etcd.Store(t), false, s.env)
	require.NoError(t, err)
	s.Server, err = New(t.Context(), &cfg.Auth, n, s.env)
	require.NoError(t, err)
	require.NoError(t, s.Bootstrap(t.Context(), map[string]string{auth.AuthListener: s.URL()}, s.env))
	parts := []daemon.Part{
		daemon.Closer("audit stream", s.env.Audit.Close), n.Part(), s.Part(),
		daemon.Listeners(map[string]func(context.Context) error{"auth": s.Serve}),
	}
	for _, p := range parts {
		p.Start(t.Context())
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, p := range slices.Backward(parts) {
			require.NoError(t, p.Stop(ctx))
		}
	})
	require.Eventually(t, func() bool { return s.env.Health.Readiness().Ready || s.issues() }, 20*time.Second, 10*time.Millisecond)
	s.handler = s.listener.Handler()
	c, err := auth.LoadCredentials(BootstrapFile(&cfg.Common))
	if err == nil {
		s.manager = s.token(t, c.AccessKeyID, string(c.SecretKey)).AccessToken
	}
	return s
}

// issues reports whether tokens can be issued; the program's own readiness covers the whole program.
func (s *service) issues() bool {
	_, err := s.grants.Ring.Signer()
	return err == nil && s.ready()
}

// written returns the log output so far.
type written struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

// String returns the text written so far.
func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// call sends a request directly to the handler.
func (s *service) call(t *testing.T, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, req)
	return rec
}

const formType = "application/x-www-form-urlencoded"

func (s *service) form(t *testing.T, path, accessKeyID, secretKey string, values url.Values) *httptest.ResponseRecorder {
	t.Helper()
	values.Set("client_id", accessKeyID)
	values.Set("client_secret", secretKey)
	return s.call(t, http.MethodPost, path, values.Encode(), "Content-Type", formType)
}

func (s *service) token(t *testing.T, accessKeyID, secretKey string) auth.TokenResponse {
	t.Helper()
	rec := s.form(t, "/oauth2/token", accessKeyID, secretKey, url.Values{"grant_type": {"client_credentials"}})
	require.Equal(t, http.StatusOK, rec.Code, rec.Body)
	return decode[auth.TokenResponse](t, rec)
}

func decode[V any](t *testing.T, rec *httptest.ResponseRecorder) (v V) {
	t.Helper()
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &v), rec.Body)
	return v
}

// manage sends a request for credential management as the manager.
func (s *service) manage(t *testing.T, method, app, rest, body string) *httptest.ResponseRecorder {
	t.Helper()
	return s.call(t, method, "/mep/appMng/v1/applications/"+app+"/confs"+rest, body, "Authorization", "Bearer "+s.manager)
}

func confs(accessKeyID, secretKey, more string) string {
	return `{"authInfo":{"credentials":{"accessKeyId":"` + accessKeyID + `","secretKey":"` + secretKey + `"}` + more + `},"appInfo":{"appName":"a"}}`
}

// good reports whether the listeners accept a token.
func (s *service) good(t *testing.T, token string) bool {
	t.Helper()
	_, err := s.node.Guard.Verifier().Verify(t.Context(), token)
	return err == nil
}

// The known answers for the predecessor's signature.
const (
	katKey    = "QVUJMSUMgS0VZLS0tLS0"
	katSecret = "DXPb4sqElKhcHe07Kw5uorayETwId1JOjjOIRomRs5wyszoCR5R7AtVa28KT3lSc"
)

func TestKnownAnswersGetTokens(t *testing.T) {
	s := start(t, etcdtest.Start(t), t.TempDir(), map[string]string{"auth-signature-window": "0s"})
	app := uuid.NewString()
	require.Equal(t, http.StatusOK, s.manage(t, http.MethodPut, app, "", confs(katKey, katSecret, "")).Code)
	for _, kat := range []struct{ host, date, signature string }{
		{"119.8.47.5:30443", "20210302T195133Z", "b726e5f20b4a1520efb455a60127bfe076c2917b51cecb8fddd49ba1d37019b8"},
		{"mep-api-gw.mep:8443", "20240102T030405Z", "c3e8edfc830431de6d8690b4f09171c47d4d762962144c87fc343774df4ebdb9"},
	} {
		ask := func() *httptest.ResponseRecorder {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mep/token", nil)
			req.Host = kat.host
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set(signing.DateHeader, kat.date)
			req.Header.Set("Authorization", "SDK-HMAC-SHA256 Access="+katKey+", SignedHeaders=content-type;host;x-sdk-date, Signature="+kat.signature)
			rec := httptest.NewRecorder()
			s.handler.ServeHTTP(rec, req)
			return rec
		}
		rec := ask()
		require.Equal(t, http.StatusOK, rec.Code, rec.Body)
		got := decode[auth.TokenResponse](t, rec)
		require.Equal(t, "Bearer", got.TokenType)
		require.Equal(t, 3600, got.ExpiresIn)
		require.Equal(t, "mp1", got.Scope)
		require.True(t, s.good(t, got.AccessToken))
		rec = ask()
		require.Equal(t, http.StatusUnauthorized, rec.Code)
		require.Contains(t, rec.Body.String(), "used before")
	}
}

// signed sends a signed request; edit changes the request after it was signed.
func (s *service) signed(t *testing.T, accessKeyID, secretKey, body string, at time.Time, edit func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mep/token", strings.NewReader(body))
	signing.Sign(req, accessKeyID, secretKey, []byte(body), at)
	if edit != nil {
		edit(req)
	}
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, req)
	return rec
}

func TestSignedRequestsThatAreNotTaken(t *testing.T) {
	s := start(t, etcdtest.Start(t), t.TempDir(), map[string]string{"auth-lockout-failures": "1000", "auth-lockout-key-failures": "50"})
	app := uuid.NewString()
	require.Equal(t, http.StatusOK, s.manage(t, http.MethodPut, app, "", confs(katKey, katSecret, "")).Code)
	now := time.Now().UTC()
	require.Equal(t, http.StatusOK, s.signed(t, katKey, katSecret, "", now, nil).Code)
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, c := range map[string]struct {
		rec    *httptest.ResponseRecorder
		status int
		code   string
		says   string
	}{
		"too old":          {s.signed(t, katKey, katSecret, "", now.Add(-16*time.Minute), nil), 401, auth.CodeInvalidClient, "set the client's clock"},
		"too new":          {s.signed(t, katKey, katSecret, "", now.Add(16*time.Minute), nil), 401, auth.CodeInvalidClient, "set the client's clock"},
		"another body":     {s.signed(t, katKey, katSecret, "{}", now, func(r *http.Request) { r.Body = http.NoBody }), 401, auth.CodeInvalidClient, "wrong"},
		"another host":     {s.signed(t, katKey, katSecret, "", now, func(r *http.Request) { r.Host = "other" }), 401, auth.CodeInvalidClient, "wrong"},
		"another path":     {s.signed(t, katKey, katSecret, "", now, func(r *http.Request) { r.RequestURI = "/mep/token?x=1" }), 401, auth.CodeInvalidClient, "wrong"},
		"another secret":   {s.signed(t, katKey, strings.Repeat("x", 64), "", now, nil), 401, auth.CodeInvalidClient, "wrong"},
		"unknown key":      {s.signed(t, strings.Repeat("u", 20), katSecret, "", now, nil), 401, auth.CodeInvalidClient, "wrong"},
		"no date":          {s.signed(t, katKey, katSecret, "", now, func(r *http.Request) { r.Header.Del(signing.DateHeader) }), 400, auth.CodeInvalidRequest, "form"},
		"date with blanks": {s.signed(t, katKey, katSecret, "", now, header(signing.DateHeader, "2026-11-22 10:00:00")), 400, auth.CodeInvalidRequest, "form"},
		"fraction":         {s.signed(t, katKey, katSecret, "", now, header(signing.DateHeader, now.Format("20060102T150405")+".5Z")), 400, auth.CodeInvalidRequest, "form"},
		"no header":        {s.signed(t, katKey, katSecret, "", now, func(r *http.Request) { r.Header.Del("Authorization") }), 400, auth.CodeInvalidRequest, "Authorization"},
		"two headers":      {s.signed(t, katKey, katSecret, "", now, func(r *http.Request) { r.Header.Add("Authorization", "x") }), 400, auth.CodeInvalidRequest, "one Authorization"},
		"bearer":           {s.signed(t, katKey, katSecret, "", now, header("Authorization", "Bearer x")), 400, auth.CodeInvalidRequest, "SDK-HMAC-SHA256"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.status, c.rec.Code, c.rec.Body)
			got := decode[auth.Error](t, c.rec)
			require.Equal(t, c.code, got.Code)
			require.Contains(t, got.Description, c.says)
			require.Equal(t, "no-store", c.rec.Header().Get("Cache-Control"))
		})
	}
}

func TestOAuthErrorsAreThoseOfTheStandard(t *testing.T) {
	s := start(t, etcdtest.Start(t), t.TempDir(), nil)
	app := uuid.NewString()
	require.Equal(t, http.StatusOK, s.manage(t, http.MethodPut, app, "", confs(katKey, katSecret, "")).Code)
	basic := func(id, secret string) string {
		req := &http.Request{Header: make(http.Header)}
		req.SetBasicAuth(id, secret)
		return req.Header.Get("Authorization")
	}
	const cc = "grant_type=client_credentials"
	creds := "&client_id=" + katKey + "&client_secret=" + katSecret
	for name, c := range map[string]struct {
		path, body string
		header     []string
		status     int
		code       string
	}{
		"Basic":                     {"/oauth2/token", cc, []string{"Authorization", basic(katKey, katSecret)}, 200, ""},
		"Basic, escaped":            {"/oauth2/token", cc, []string{"Authorization", basic(url.QueryEscape(katKey), url.QueryEscape(katSecret))}, 200, ""},
		"form":                      {"/oauth2/token", cc + creds, nil, 200, ""},
		"own scope":                 {"/oauth2/token", cc + creds + "&scope=mp1", nil, 200, ""},
		"more scope":                {"/oauth2/token", cc + creds + "&scope=mp1+mm5", nil, 400, auth.CodeInvalidScope},
		"no grant":                  {"/oauth2/token", creds[1:], nil, 400, auth.CodeInvalidRequest},
		"unknown grant":             {"/oauth2/token", "grant_type=password" + creds, nil, 400, auth.CodeUnsupportedGrantType},
		"refresh switched off":      {"/oauth2/token", "grant_type=refresh_token&refresh_token=x" + creds, nil, 400, auth.CodeUnauthorizedClient},
		"nobody":                    {"/oauth2/token", cc, nil, 401, auth.CodeInvalidClient},
		"wrong secret":              {"/oauth2/token", cc, []string{"Authorization", basic(katKey, "x")}, 401, auth.CodeInvalidClient},
		"id that cannot be":         {"/oauth2/token", cc, []string{"Authorization", basic("short", "x")}, 401, auth.CodeInvalidClient},
		"bearer for a client":       {"/oauth2/token", cc, []string{"Authorization", "Bearer x"}, 401, auth.CodeInvalidClient},
		"two proofs":                {"/oauth2/token", cc + creds, []string{"Authorization", basic(katKey, katSecret)}, 400, auth.CodeInvalidRequest},
		"another client_id":         {"/oauth2/token", cc + "&client_id=x", []string{"Authorization", basic(katKey, katSecret)}, 400, auth.CodeInvalidRequest},
		"parameter twice":           {"/oauth2/token", cc + "&" + cc + creds, nil, 400, auth.CodeInvalidRequest},
		"secret in the URL":         {"/oauth2/token?x=1", cc + creds, nil, 400, auth.CodeInvalidRequest},
		"JSON":                      {"/oauth2/token", "{}", []string{"Content-Type", "application/json"}, 400, auth.CodeInvalidRequest},
		"revoke without a token":    {"/oauth2/revoke", creds[1:], nil, 400, auth.CodeInvalidRequest},
		"revoke what is unknown":    {"/oauth2/revoke", "token=x" + creds, nil, 200, ""},
		"introspect what is wrong":  {"/oauth2/introspect", "token=x" + creds, nil, 200, ""},
		"introspect without client": {"/oauth2/introspect", "token=x", nil, 401, auth.CodeInvalidClient},
	} {
		t.Run(name, func(t *testing.T) {
			h := c.header
			if !slices.Contains(h, "Content-Type") {
				h = append(slices.Clone(h), "Content-Type", formType)
			}
			rec := s.call(t, http.MethodPost, c.path, c.body, h...)
			require.Equal(t, c.status, rec.Code, rec.Body)
			if c.code != "" {
				require.Equal(t, c.code, decode[auth.Error](t, rec).Code)
			}
			require.Equal(t, c.status == 401, rec.Header().Get("WWW-Authenticate") != "")
		})
	}
	require.Equal(t, http.StatusRequestEntityTooLarge, s.call(t, http.MethodPost, "/oauth2/token", strings.Repeat("x", maxBody+1)).Code)
	require.Equal(t, http.StatusMethodNotAllowed, s.call(t, http.MethodGet, "/oauth2/token", "").Code)
}

func TestRevocationReachesOtherReplicas(t *testing.T) {
	etcd := etcdtest.Start(t)
	one := start(t, etcd, t.TempDir(), map[string]string{"auth-issuer": "https://mep.test"})
	dir := t.TempDir()
	seal, err := os.ReadFile(one.dir + "/auth/seal.key")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir+"/auth", 0o700))
	require.NoError(t, os.WriteFile(dir+"/auth/seal.key", seal, 0o600))
	two := start(t, etcd, dir, map[string]string{"auth-issuer": "https://mep.test"})
	require.NoFileExists(t, dir+"/bootstrap/mepm.json", "a database has one first manager")

	app := uuid.NewString()
	require.Equal(t, http.StatusOK, one.manage(t, http.MethodPut, app, "", confs(katKey, katSecret, "")).Code)
	issue := func() string {
		token := one.token(t, katKey, katSecret).AccessToken
		require.Eventually(t, func() bool { return two.good(t, token) }, 20*time.Second, 5*time.Millisecond)
		return token
	}
	for name, revoke := range map[string]func(token string){
		"revoked": func(token string) {
			require.Equal(t, http.StatusOK, one.form(t, "/oauth2/revoke", katKey, katSecret, url.Values{"token": {token}}).Code)
		},
		"disabled": func(string) {
			require.Equal(t, http.StatusOK, one.manage(t, http.MethodPatch, app, "", `{"enabled":false}`).Code)
			require.Equal(t, http.StatusUnauthorized, one.form(t, "/oauth2/token", katKey, katSecret, url.Values{"grant_type": {"client_credentials"}}).Code)
			require.Equal(t, http.StatusOK, one.manage(t, http.MethodPatch, app, "", `{"enabled":true}`).Code)
		},
		"other secret": func(string) {
			require.Equal(t, http.StatusOK, one.manage(t, http.MethodPut, app, "", confs(katKey, strings.Repeat("n", 64), "")).Code)
			require.Equal(t, http.StatusOK, one.manage(t, http.MethodPut, app, "", confs(katKey, katSecret, "")).Code)
		},
		"deleted": func(string) {
			require.Equal(t, http.StatusOK, one.manage(t, http.MethodDelete, app, "", "").Code)
			require.Equal(t, http.StatusOK, one.manage(t, http.MethodPut, app, "", confs(katKey, katSecret, "")).Code)
		},
	} {
		t.Run(name, func(t *testing.T) {
			token := issue()
			revoke(token)
			require.False(t, one.good(t, token), "here at once")
			require.Eventually(t, func() bool { return !two.good(t, token) }, 20*time.Second, 5*time.Millisecond)
			answer := one.form(t, "/oauth2/introspect", katKey, katSecret, url.Values{"token": {token}})
			require.JSONEq(t, `{"active":false}`, answer.Body.String())
			require.True(t, one.good(t, one.token(t, katKey, katSecret).AccessToken), "new tokens are good")
		})
	}
}

func TestCredentialManagementNeedsItsScope(t *testing.T) {
	s := start(t, etcdtest.Start(t), t.TempDir(), nil)
	app := uuid.NewString()
	rec := s.manage(t, http.MethodPut, app, "", `{"authInfo":{"credentials":{}},"appInfo":{"appName":"a","requiredServices":null}}`)
	require.Equal(t, http.StatusOK, rec.Code, rec.Body)
	made := decode[auth.Confs](t, rec)
	keys := made.AuthInfo.Credentials
	require.Len(t, string(keys.SecretKey), 64, "generated, so it is shown, once")
	appToken := s.token(t, keys.AccessKeyID, string(keys.SecretKey)).AccessToken
	for _, method := range []string{http.MethodPut, http.MethodGet, http.MethodPatch, http.MethodDelete} {
		path := "/mep/appMng/v1/applications/" + app + "/confs"
		require.Equal(t, http.StatusUnauthorized, s.call(t, method, path, "{}").Code, method)
		require.Equal(t, http.StatusForbidden, s.call(t, method, path, "{}", "Authorization", "Bearer "+appToken).Code, method)
	}
	record := s.manage(t, http.MethodGet, app, "", "")
	require.Equal(t, http.StatusOK, record.Code)
	require.NotContains(t, record.Body.String(), string(keys.SecretKey))
	require.Contains(t, record.Body.String(), `"required_services":"[]"`)
	again := s.manage(t, http.MethodPut, strings.ToUpper(app), "", confs(keys.AccessKeyID, string(keys.SecretKey), ""))
	require.Equal(t, http.StatusOK, again.Code, "the same application in another spelling")
	require.NotContains(t, again.Body.String(), string(keys.SecretKey), "supplied, so it is not echoed")
	list := s.call(t, http.MethodGet, "/mep/appMng/v1/applications", "", "Authorization", "Bearer "+s.manager)
	require.Len(t, decode[[]auth.ConfsRecord](t, list), 1, "managers are not among them")

	for name, c := range map[string]struct {
		app, body string
		status    int
	}{
		"short access key": {app, confs("x", "", ""), 400},
		"short secret":     {app, confs("", "x", ""), 400},
		"no JSON":          {app, "x", 400},
		"no UUID":          {"x", confs("", "", ""), 404},
		"somebody else's":  {uuid.NewString(), confs(keys.AccessKeyID, "", ""), 409},
	} {
		rec := s.manage(t, http.MethodPut, c.app, "", c.body)
		require.Equal(t, c.status, rec.Code, name)
		require.Equal(t, "application/problem+json", rec.Header().Get("Content-Type"), name)
	}
	require.Equal(t, http.StatusNotFound, s.manage(t, http.MethodGet, uuid.NewString(), "", "").Code)
	require.Equal(t, http.StatusNotFound, s.manage(t, http.MethodDelete, uuid.NewString(), "", "").Code)
}

func TestNothingSecretIsWrittenDown(t *testing.T) {
	s := start(t, etcdtest.Start(t), t.TempDir(), map[string]string{"log-level": "debug"})
	app := uuid.NewString()
	require.Equal(t, http.StatusOK, s.manage(t, http.MethodPut, app, "", confs(katKey, katSecret, `,"refreshTokens":true`)).Code)
	got := s.token(t, katKey, katSecret)
	require.NotEmpty(t, got.RefreshToken)
	s.form(t, "/oauth2/token", katKey, strings.Repeat("w", 64), url.Values{"grant_type": {"client_credentials"}})
	s.form(t, "/oauth2/token", katKey, katSecret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.RefreshToken}})
	s.form(t, "/oauth2/revoke", katKey, katSecret, url.Values{"token": {got.AccessToken}})
	require.NoError(t, s.env.Audit.Reopen())
	trail, err := os.ReadFile(s.env.Common.AuditPath())
	require.NoError(t, err)
	for _, action := range []string{"credential.create", "credential.put", "token.issue", "token.revoke"} {
		require.Contains(t, string(trail), action)
	}
	require.Regexp(t, `"action":"token.issue","result":"denied",.*"listener":"auth"`, string(trail))
	all := string(trail) + s.log.String()
	signature := got.AccessToken[strings.LastIndexByte(got.AccessToken, '.')+1:]
	for _, secret := range []string{
		katSecret, signature, got.RefreshToken, strings.Repeat("w", 64), hex.EncodeToString([]byte(katSecret)), s.manager,
	} {
		require.NotContains(t, all, secret)
	}
}
