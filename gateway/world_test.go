package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Background work of etcd servers that were closed.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.etcd.io/etcd/client/pkg/v3/fileutil.purgeFile.func1"),
		goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// The platform's own issuer, and the id of its key.
const (
	issuer = "https://mep.test"
	kid    = "k1"
)

// world is a platform: its etcd, what is registered in it, and the gateways in front of it.
type world struct {
	testing.TB
	etcd  *etcdtest.Server
	store *etcd.Store
	key   *ecdsa.PrivateKey

	mu    sync.Mutex
	gates []*gate
	known map[string]bool // subjects with credentials
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{TB: tb, etcd: etcdtest.Start(tb), key: newKey(tb), known: make(map[string]bool)}
	w.store = w.etcd.Store(tb)
	w.put(state.SigningKeyKey(kid), state.SigningKey{
		Version: state.Current(), Algorithm: "ES256", JWK: jwkOf(tb, kid, w.key), NotBefore: time.Now(),
	})
	w.put(state.IssuerKey(issuer), state.Issuer{Version: state.Current(), Issuer: issuer})
	return w
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	return key
}

// jwkOf returns the public part of a key as a JWK (RFC 7517).
func jwkOf(tb testing.TB, id string, key *ecdsa.PrivateKey) json.RawMessage {
	tb.Helper()
	point, err := key.PublicKey.Bytes()
	require.NoError(tb, err)
	return marshal(tb, map[string]string{
		"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:]),
	})
}

func marshal(tb testing.TB, v any) []byte {
	tb.Helper()
	b, err := json.Marshal(v)
	require.NoError(tb, err)
	return b
}

// put stores a record and waits until it is in force in every gateway.
func (w *world) put(key string, rec any) int64 {
	w.Helper()
	return w.do(clientv3.OpPut(key, string(marshal(w, rec))))
}

func (w *world) delete(key string) int64 {
	w.Helper()
	return w.do(clientv3.OpDelete(key))
}

func (w *world) do(op clientv3.Op) int64 {
	w.Helper()
	resp, err := w.store.Do(context.Background(), op)
	require.NoError(w, err)
	var revision int64
	switch {
	case resp.Put() != nil:
		revision = resp.Put().Header.Revision
	case resp.Del() != nil:
		revision = resp.Del().Header.Revision
	}
	w.mu.Lock()
	gates := slices.Clone(w.gates)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, g := range gates {
		require.NoError(w, g.CatchUp(ctx, revision))
	}
	return revision
}

// app registers an app instance that declares that it uses some services, or declares nothing.
func (w *world) app(declared ...string) string {
	w.Helper()
	id := uuid.NewString()
	w.put(state.AppKey(id), state.App{Version: state.Current(), Name: "app", Requires: declared, Created: time.Now()})
	return id
}

// service registers an ACTIVE service that every consumer may use, and returns its id.
func (w *world) service(owner, name, uri string, changes ...func(*mp1.ServiceInfo)) string {
	w.Helper()
	id := uuid.NewString()
	w.setService(owner, id, name, uri, changes...)
	return id
}

func (w *world) setService(owner, id, name, uri string, changes ...func(*mp1.ServiceInfo)) int64 {
	w.Helper()
	everywhere := false
	info := mp1.ServiceInfo{
		SerInstanceID: id, SerName: name, Version: "1", State: mp1.StateActive, Serializer: mp1.SerializerJSON, ConsumedLocalOnly: &everywhere,
		TransportInfo: &mp1.TransportInfo{
			ID: "t", Name: "REST", Type: mp1.TransportRESTHTTP, Protocol: "HTTP", Version: "1.1",
			Endpoint: &mp1.EndPointInfo{URIs: []string{uri}}, Security: &mp1.SecurityInfo{},
		},
	}
	for _, change := range changes {
		change(&info)
	}
	return w.put(state.ServiceKey(owner, id), state.Service{Version: state.Current(), Info: info, Beat: time.Now()})
}

// named registers a service of a new app.
func (w *world) named(name, uri string) (owner, id string) {
	w.Helper()
	owner = w.app()
	return owner, w.service(owner, name, uri)
}

func (w *world) policy(name string, p api.Policy) {
	w.Helper()
	w.put(state.GatewayPolicyKey(name), state.GatewayPolicy{Version: state.Current(), Name: name, Policy: p})
}

func (w *world) route(id string, r api.Route) {
	w.Helper()
	w.put(state.GatewayRouteKey(id), state.GatewayRoute{Version: state.Current(), Route: r})
}

// anybody admits callers who prove nothing.
var anybody = api.Policy{Authentication: []api.Method{api.ByToken, api.ByAPIKey, api.Anonymous}}

// token issues a token of the platform; without scopes it gets mp1.
func (w *world) token(subject string, scopes ...string) string {
	w.Helper()
	if !w.known[subject] {
		w.known[subject] = true
		w.put(state.CredentialKey("ak-"+subject), state.Credential{
			Version: state.Current(), Subject: subject, Scopes: []string{"mp1", "mm5"}, Epoch: "e", Created: time.Now(), Changed: time.Now(),
		})
	}
	if len(scopes) == 0 {
		scopes = []string{"mp1"}
	}
	text := scopes[0]
	for _, s := range scopes[1:] {
		text += " " + s
	}
	return w.sign(w.key, kid, map[string]any{
		"iss": issuer, "sub": subject, "aud": "mep", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "jti": uuid.NewString(),
		"scope": text, "client_id": "ak-" + subject, "epoch": "e",
	})
}

// sign returns a token signed with ES256 (RFC 7518 3.4).
func (w *world) sign(key *ecdsa.PrivateKey, id string, claims map[string]any) string {
	w.Helper()
	head := marshal(w, map[string]string{"alg": "ES256", "typ": "JWT", "kid": id})
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(marshal(w, claims))
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	require.NoError(w, err)
	signature := make([]byte, 64)
	for i, n := range []*big.Int{r, s} {
		n.FillBytes(signature[32*i : 32*(i+1)])
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// bearer sets the token of a request.
func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func field(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = []string{value} }
}

// serve answers requests until the test ends.
func serve(tb testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	tb.Cleanup(s.Close)
	return s
}

// mirrorOf starts a server that answers with what it received: the method, the target, and the header fields.
func mirrorOf(tb testing.TB) *httptest.Server { return serve(tb, reflect) }

// seen is what an upstream received.
type seen struct {
	Method, Target, Host, Proto string
	Header                      http.Header
	Body                        string
}

func reflect(w http.ResponseWriter, r *http.Request) {
	var body []byte
	if r.ContentLength != 0 {
		body = readUpTo(r.Body, 1<<20)
	}
	b, err := json.Marshal(seen{r.Method, r.RequestURI, r.Host, r.Proto, r.Header, string(body)})
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	_, _ = w.Write(b)
}
