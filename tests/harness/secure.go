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

// CAFile is what the clients of the process trust: the CA it made for itself, unless Trust said otherwise.
func (p *Process) CAFile() string {
	if p.spec.caFile != "" {
		return p.spec.caFile
	}
	return filepath.Join(p.DataDir, "pki", "ca.crt")
}

// TLS is the configuration of a client that trusts the process.
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

// transport performs exchanges without looking at them. from is the address they come from, "" for any.
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

// hangUp closes the connections nobody uses.
func (p *Process) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.paths {
		t.CloseIdleConnections()
	}
}

// Auth returns a client of the token service without a token, whose exchanges are checked against its document.
func (p *Process) Auth(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "auth", "", "mep_auth")
}

// AuthFrom is Auth from one of the machine's own addresses, such as 127.0.0.7.
func (p *Process) AuthFrom(tb testing.TB, address string) *Client {
	tb.Helper()
	return p.client(tb, "auth", address, "mep_auth")
}

// UncheckedAuthFrom is AuthFrom whose exchanges are not checked, for very many of them.
func (p *Process) UncheckedAuthFrom(tb testing.TB, address string) *Client {
	tb.Helper()
	return p.client(tb, "auth", address)
}

// ClientFrom is Client from one of the machine's own addresses.
func (p *Process) ClientFrom(tb testing.TB, address string) *Client {
	tb.Helper()
	return p.client(tb, "mp1", address, mp1Documents...)
}

// AuthAtMp1 is Auth at the Mp1 listener, which takes signed requests for tokens, too.
func (p *Process) AuthAtMp1(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "mp1", "", "mep_auth")
}

// Keys are an access key and its secret key.
type Keys struct {
	// AppInstanceID is empty for a manager's.
	AppInstanceID string `json:"appInstanceId"`
	AccessKeyID   string `json:"accessKeyId"`
	SecretKey     string `json:"secretKey"`
}

// Credentials is a credentials file.
type Credentials struct {
	Keys
	Name   string            `json:"name"`
	Scopes []string          `json:"scopes"`
	URLs   map[string]string `json:"urls"`
	CAFile string            `json:"caFile"`
}

// BootstrapFile is where the process leaves the first credentials of the manager.
func (p *Process) BootstrapFile() string { return filepath.Join(p.DataDir, "bootstrap", "mepm.json") }

// Bootstrap reads that file.
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

// Form is the body of an OAuth2 request: pairs of names and values.
func Form(pairs ...string) string {
	values := make(url.Values)
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return values.Encode()
}

// AsForm says that the body is a form.
func AsForm() RequestOption { return Header("Content-Type", "application/x-www-form-urlencoded") }

// Basic authenticates with HTTP Basic as RFC 6749 2.3.1 wants it.
func (k Keys) Basic() RequestOption {
	return func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(k.AccessKeyID), url.QueryEscape(k.SecretKey)) }
}

// Token is the answer to a request for a token.
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

// Fetch is Ask when it has to work.
func (k Keys) Fetch(c *Client, scopes ...string) Token {
	c.tb.Helper()
	var t Token
	k.Ask(c, scopes...).Is(http.StatusOK).Into(&t)
	return t
}

// ConfsPath is where the credentials of an app instance are managed.
func ConfsPath(appInstanceID string) string {
	return "/mep/appMng/v1/applications/" + appInstanceID + "/confs"
}

// Manager returns a client of the token service with a token of the first manager that has all its scopes.
func (p *Process) Manager(tb testing.TB) *Client {
	tb.Helper()
	return p.ManagerWith(tb, p.Bootstrap(tb).Keys)
}

// ManagerWith is Manager with the keys of another one.
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

// Provision gives a new app instance its credentials. confs is the body of the request, nil for one that leaves all to the
// platform.
func Provision(manager *Client, confs Object) Keys {
	manager.tb.Helper()
	return ProvisionAs(manager, uuid.NewString(), confs)
}

// ProvisionAs is Provision for an app instance with a known id. Keys that confs names are those of the result.
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

// App is an app instance with credentials, and a client of Mp1 with its token.
type App struct {
	*Client
	Keys
	Token Token
}

// NewApp provisions an app instance through the API of the manager and fetches its token.
func (p *Process) NewApp(tb testing.TB) App {
	tb.Helper()
	keys := Provision(p.Manager(tb), nil)
	token := keys.Fetch(p.Auth(tb))
	return App{Client: p.Client(tb).With(token.AccessToken), Keys: keys, Token: token}
}

// Metric reads a metric from the operations listener: name is that of one series, with its labels as they are written
// there. ok is false when there is no such series.
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
