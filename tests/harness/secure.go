package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// CAFile returns the CA certificate that the clients of the process trust: that of the process's own CA, unless Trust says
// otherwise.
func (p *Process) CAFile() string {
	if p.spec.caFile != "" {
		return p.spec.caFile
	}
	return filepath.Join(p.DataDir, "pki", "ca.crt")
}

// TLS returns the configuration of a client that trusts the process.
func (p *Process) TLS() (*tls.Config, error) {
	pem, err := os.ReadFile(p.CAFile())
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", p.CAFile())
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// transport returns a transport that does not check exchanges. from is the local address, "" for any.
func (p *Process) transport(from string) (*http.Transport, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.paths[from]; t != nil {
		return t, nil
	}
	dialer := &net.Dialer{Timeout: Patience}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	t := &http.Transport{
		DialContext: dialer.DialContext, MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
	if p.spec.secure {
		settings, err := p.TLS()
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig, t.ForceAttemptHTTP2 = settings, true
	}
	p.paths[from] = t
	return t, nil
}

// hangUp closes idle connections.
func (p *Process) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.paths {
		t.CloseIdleConnections()
	}
}

// Auth returns a client of the token service without a token, whose exchanges are checked against the OpenAPI document.
func (p *Process) Auth(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "auth", "", "mep_auth")
}

// AuthFrom is like Auth, from one of the machine's own addresses, such as 127.0.0.7.
func (p *Process) AuthFrom(tb testing.TB, address string) *Client {
	tb.Helper()
	return p.client(tb, "auth", address, "mep_auth")
}

// UncheckedAuthFrom is like AuthFrom without checks, for large numbers of exchanges.
func (p *Process) UncheckedAuthFrom(tb testing.TB, address string) *Client {
	tb.Helper()
	return p.client(tb, "auth", address)
}

// ClientFrom is like Client, from one of the machine's own addresses.
func (p *Process) ClientFrom(tb testing.TB, address string) *Client {
	tb.Helper()
	return p.client(tb, "mp1", address, mp1Documents...)
}

// AuthAtMp1 is like Auth at the Mp1 listener, which also accepts signed token requests.
func (p *Process) AuthAtMp1(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "mp1", "", "mep_auth")
}

// Keys holds an access key id and its secret key.
type Keys struct {
	// AppInstanceID is empty for managers.
	AppInstanceID string `json:"appInstanceId"`
	AccessKeyID   string `json:"accessKeyId"`
	SecretKey     string `json:"secretKey"`
}

// Credentials is the content of a credentials file.
type Credentials struct {
	Keys
	Name   string            `json:"name"`
	Scopes []string          `json:"scopes"`
	URLs   map[string]string `json:"urls"`
	CAFile string            `json:"caFile"`
}

// BootstrapFile returns the file with the initial credentials of the manager.
func (p *Process) BootstrapFile() string { return filepath.Join(p.DataDir, "bootstrap", "mepm.json") }

// Bootstrap reads the BootstrapFile.
func (p *Process) Bootstrap(tb testing.TB) Credentials {
	tb.Helper()
	text, err := os.ReadFile(p.BootstrapFile())
	if err != nil {
		tb.Fatalf("harness: %v", err)
	}
	var c Credentials
	if err := json.Unmarshal(text, &c); err != nil {
		tb.Fatalf("harness: %s: %v", p.BootstrapFile(), err)
	}
	return c
}

// Form returns the body of an OAuth 2.0 request, from pairs of names and values.
func Form(pairs ...string) string {
	values := make(url.Values)
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return values.Encode()
}

// AsForm sets the Content-Type of a form.
func AsForm() RequestOption { return Header("Content-Type", "application/x-www-form-urlencoded") }

// Basic authenticates with HTTP Basic according to RFC 6749 2.3.1.
func (k Keys) Basic() RequestOption {
	return func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(k.AccessKeyID), url.QueryEscape(k.SecretKey)) }
}

// Token is a token response.
type Token struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	Scope        string `json:"scope"`
	RefreshToken string `json:"refresh_token"`
}

// Ask requests a token with client credentials.
func (k Keys) Ask(c *Client, scopes ...string) *Answer {
	c.tb.Helper()
	pairs := []string{"grant_type", "client_credentials"}
	if len(scopes) > 0 {
		pairs = append(pairs, "scope", strings.Join(scopes, " "))
	}
	return c.Post("/oauth2/token", Form(pairs...), AsForm(), k.Basic())
}

// Fetch is like Ask but ends the test when the request fails.
func (k Keys) Fetch(c *Client, scopes ...string) Token {
	c.tb.Helper()
	var t Token
	k.Ask(c, scopes...).Is(http.StatusOK).Into(&t)
	return t
}

// ConfsPath returns the path at which the credentials of an app instance are managed.
func ConfsPath(appInstanceID string) string {
	return "/mep/appMng/v1/applications/" + appInstanceID + "/confs"
}

// Manager returns a client of the token service with a token of the first manager, with all its scopes.
func (p *Process) Manager(tb testing.TB) *Client {
	tb.Helper()
	return p.ManagerWith(tb, p.Bootstrap(tb).Keys)
}

// ManagerWith is like Manager with the keys of another manager.
func (p *Process) ManagerWith(tb testing.TB, keys Keys) *Client {
	tb.Helper()
	p.mu.Lock()
	token := p.tokens[keys.AccessKeyID]
	p.mu.Unlock()
	if token == "" {
		token = keys.Fetch(p.Auth(tb)).AccessToken
		p.mu.Lock()
		p.tokens[keys.AccessKeyID] = token
		p.mu.Unlock()
	}
	return p.Auth(tb).With(token)
}

// Provision creates credentials for a new app instance. confs is the request body; nil leaves everything to the platform.
func Provision(manager *Client, confs Object) Keys {
	manager.tb.Helper()
	return ProvisionAs(manager, uuid.NewString(), confs)
}

// ProvisionAs is like Provision for an app instance with a known id. Keys given in confs are those of the result.
func ProvisionAs(manager *Client, appInstanceID string, confs Object) Keys {
	manager.tb.Helper()
	if confs == nil {
		confs = Object{}
	}
	var made, given struct {
		AuthInfo struct{ Credentials Keys }
	}
	manager.Put(ConfsPath(appInstanceID), confs).Is(http.StatusOK).Into(&made)
	text, err := json.Marshal(confs)
	if err == nil {
		err = json.Unmarshal(text, &given)
	}
	if err != nil {
		manager.tb.Fatalf("harness: %v", err)
	}
	keys := made.AuthInfo.Credentials
	if keys.SecretKey == "" {
		keys.SecretKey = given.AuthInfo.Credentials.SecretKey
	}
	keys.AppInstanceID = appInstanceID
	return keys
}

// App is an app instance with credentials and an Mp1 client with its token.
type App struct {
	*Client
	Keys
	Token Token
}

// NewApp provisions an app instance through the manager's API and fetches its token.
func (p *Process) NewApp(tb testing.TB) App {
	tb.Helper()
	keys := Provision(p.Manager(tb), nil)
	token := keys.Fetch(p.Auth(tb))
	return App{Client: p.Client(tb).With(token.AccessToken), Keys: keys, Token: token}
}

// Metric reads a metric from the operations listener. name is the name of one series, with its labels as written there. ok is
// false if the series does not exist.
func (p *Process) Metric(tb testing.TB, name string) (value float64, ok bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), Patience)
	defer cancel()
	text := p.client(tb, "ops", "").Get("/metrics", Context(ctx)).Is(http.StatusOK).Body
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, name+" "); found {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				tb.Fatalf("harness: metric %s: %v", name, err)
			}
			return value, true
		}
	}
	return 0, false
}
