package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"github.com/openmep/mep/kit/errs"
)

const (
	// jwksRefresh is how often the keys of an issuer are fetched; jwksUnknown is the minimum time between two fetches for
	// unknown keys; jwksTimeout bounds one fetch, and jwksBytes its response.
	jwksRefresh = 5 * time.Minute
	jwksUnknown = 10 * time.Second
	jwksTimeout = 3 * time.Second
	jwksBytes   = 1 << 20
	// jwksAgain is how soon a failed fetch is retried.
	jwksAgain = 2 * time.Second
	// jwksPoll is how often a file of keys is read.
	jwksPoll = 5 * time.Second
)

// issuer is a trusted issuer and its keys.
type issuer struct {
	TrustedIssuer
	keys atomic.Pointer[keyfunc.Keyfunc]
	seen []byte // contents of JWKSFile when last read
	ca   []byte // contents of CAFile, with which JWKSURL is verified, when the issuer was made
	http *http.Client
	log  *slog.Logger

	wanted  chan struct{} // asks for a fetch
	unknown *rate.Limiter // of fetches for unknown keys

	mu      sync.Mutex
	fetched chan struct{} // closed when the current or next fetch has ended
	asked   bool          // a fetch has ended, or keys were adopted
	failed  bool          // the last fetch failed, or there was none
}

// newIssuer returns an issuer. Keys in a file must be readable now; run fetches those at a URL.
func newIssuer(cfg TrustedIssuer, audience string, log *slog.Logger) (*issuer, error) {
	cfg.Audience = cmp.Or(cfg.Audience, audience)
	cfg.SubjectClaim = cmp.Or(cfg.SubjectClaim, "sub")
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = Algorithms
	}
	if len(cfg.Scopes) == 0 {
		cfg.Scopes = []string{"mp1"}
	}
	i := &issuer{
		TrustedIssuer: cfg, log: log.With("issuer", cfg.Issuer), wanted: make(chan struct{}, 1),
		unknown: rate.NewLimiter(rate.Every(jwksUnknown), 1), fetched: make(chan struct{}), failed: true,
	}
	if cfg.JWKSFile != "" {
		return i, i.readFile()
	}
	return i, i.client()
}

// readFile reads the keys from their file if it has changed.
func (i *issuer) readFile() error {
	data, err := os.ReadFile(i.JWKSFile)
	if err != nil {
		return fmt.Errorf("keys of the issuer %s: %w", i.Issuer, err)
	}
	if bytes.Equal(data, i.seen) {
		return nil
	}
	i.seen = data
	keys, err := keyfunc.NewJWKSetJSON(json.RawMessage(data))
	if err != nil {
		return fmt.Errorf("keys of the issuer %s: %s is not a JWK set (RFC 7517): %w", i.Issuer, i.JWKSFile, err)
	}
	i.keys.Store(&keys)
	return nil
}

// client makes the HTTP client that fetches keys, with bounds on time and size.
func (i *issuer) client() error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if i.CAFile != "" {
		var err error
		if i.ca, err = os.ReadFile(i.CAFile); err != nil {
			return fmt.Errorf("issuer %s: %w", i.Issuer, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(i.ca) {
			return fmt.Errorf("issuer %s: %s holds no certificate", i.Issuer, i.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	i.http = &http.Client{
		Transport: bounded{transport}, Timeout: jwksTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// bounded limits the size of responses.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, jwksBytes), resp.Body}
	}
	return resp, err
}

// run keeps the keys fresh until ctx ends.
func (i *issuer) run(ctx context.Context) {
	if i.JWKSURL != "" {
		i.follow(ctx)
		return
	}
	tick := time.NewTicker(jwksPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := i.readFile(); err != nil {
				i.log.Error("the keys of the issuer cannot be read again, the present ones stay in force", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// follow fetches the keys periodically and on request. A fetch outlives the request that asked for it.
func (i *issuer) follow(ctx context.Context) {
	defer i.http.CloseIdleConnections()
	defer i.ended(context.Canceled) // release those that wait for a fetch
	for ctx.Err() == nil {
		err := i.fetch(ctx)
		news := i.ended(err)
		wait := jwksRefresh
		if err != nil && ctx.Err() == nil {
			wait = jwksAgain
			if news || i.keys.Load() == nil {
				i.log.Warn("the keys of the issuer could not be fetched, the last ones stay in force", "error", err)
			}
		}
		select {
		case <-time.After(wait):
		case <-i.wanted:
		case <-ctx.Done():
		}
	}
}

// ended records the result of a fetch, releases those that wait for it, and reports whether its success differs from the
// last one's.
func (i *issuer) ended(err error) (news bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	news = (err != nil) != i.failed
	i.asked, i.failed = true, err != nil
	close(i.fetched)
	i.fetched = make(chan struct{})
	return news
}

func (i *issuer) fetch(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.JWKSURL, nil)
	if err != nil {
		return err
	}
	resp, err := i.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", i.JWKSURL, resp.Status)
	}
	keys, err := keyfunc.NewJWKSetJSON(json.RawMessage(data))
	if err != nil {
		return fmt.Errorf("%s does not answer a JWK set (RFC 7517): %w", i.JWKSURL, err)
	}
	i.keys.Store(&keys)
	return nil
}

// refreshed requests a fetch because of an unknown key, unless there was one just now, and waits for it; everybody waits for
// the first fetch. It reports whether the last fetch succeeded.
func (i *issuer) refreshed(ctx context.Context) bool {
	i.mu.Lock()
	done, first := i.fetched, !i.asked
	i.mu.Unlock()
	if first || i.unknown.Allow() {
		if !first {
			select {
			case i.wanted <- struct{}{}:
			default:
			}
		}
		wait := time.NewTimer(jwksTimeout)
		defer wait.Stop()
		select {
		case <-done:
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.failed
}

// key returns the key that a token says it was signed with.
func (i *issuer) key(ctx context.Context, t *jwt.Token) (any, error) {
	if !slices.Contains(i.Algorithms, t.Method.Alg()) {
		return nil, refuse(codeToken, "tokens of "+i.Issuer+" must not be signed with "+t.Method.Alg())
	}
	key, err := i.find(t)
	if err == nil {
		return key, nil
	}
	well := i.JWKSFile != "" || i.refreshed(ctx)
	if key, err = i.find(t); err == nil {
		return key, nil
	}
	if !well {
		return nil, errs.Wrap(errs.Unavailable, err, "the keys of the issuer %s cannot be fetched at present", i.Issuer).After(jwksAgain)
	}
	i.log.Debug("no key for a token", "error", err)
	return nil, refuse(codeToken, "no key of "+i.Issuer+" has the kid of the token")
}

func (i *issuer) find(t *jwt.Token) (any, error) {
	keys := i.keys.Load()
	if keys == nil {
		return nil, errors.New("no keys yet")
	}
	return (*keys).Keyfunc(t)
}

// caller returns the caller of a verified token.
func (i *issuer) caller(claims *Claims, payload []byte) (*Caller, error) {
	subject := claims.Subject
	if i.SubjectClaim != "sub" {
		var all map[string]any
		if err := json.Unmarshal(payload, &all); err != nil {
			return nil, refuse(codeToken, "the token's payload is not a JSON object")
		}
		subject, _ = all[i.SubjectClaim].(string)
	}
	if subject == "" {
		return nil, refuse(codeToken, "the token has no claim "+i.SubjectClaim+" that says who the caller is")
	}
	scopes := slices.Clone(i.Grant)
	granted := slices.Clone(i.Grant)
	for _, s := range claims.Scopes() {
		ours := slices.Contains(Scopes, s)
		if ours && !slices.Contains(i.Scopes, s) {
			continue // an issuer grants no platform scopes but those configured for it
		}
		if ours && !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
		if !slices.Contains(granted, s) {
			granted = append(granted, s)
		}
	}
	return &Caller{Subject: CanonicalID(strings.Clone(subject)), Scopes: scopes, Granted: granted}, nil
}
