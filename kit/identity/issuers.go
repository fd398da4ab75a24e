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

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"github.com/openmep/mep/kit/errs"
)

const (
	// jwksRefresh is how often the keys of an issuer are fetched; jwksUnknown is the least time between two fetches because
	// of a key that is not known; jwksTimeout bounds one fetch, jwksBytes its answer.
	jwksRefresh = 5 * time.Minute
	jwksUnknown = 10 * time.Second
	jwksTimeout = 3 * time.Second
	jwksBytes   = 1 << 20
	// jwksPoll is how often a file of keys is looked at.
	jwksPoll = 5 * time.Second
)

// issuer is a trusted issuer and its keys.
type issuer struct {
	TrustedIssuer
	keys atomic.Pointer[keyfunc.Keyfunc]
	seen []byte // the file as it was read last
	log  *slog.Logger
}

// newIssuer prepares an issuer. Keys in a file must be readable now; those at a URL are fetched by run.
func newIssuer(cfg TrustedIssuer, audience string, log *slog.Logger) (*issuer, error) {
	cfg.Audience = cmp.Or(cfg.Audience, audience)
	cfg.SubjectClaim = cmp.Or(cfg.SubjectClaim, "sub")
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = Algorithms
	}
	if len(cfg.Scopes) == 0 {
		cfg.Scopes = []string{"mp1"}
	}
	i := &issuer{TrustedIssuer: cfg, log: log.With("issuer", cfg.Issuer)}
	if cfg.JWKSFile != "" {
		return i, i.readFile()
	}
	_, err := i.client()
	return i, err
}

// readFile reads the keys from their file when it has changed.
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

// client fetches keys: with bounds on time and size.
func (i *issuer) client() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if i.CAFile != "" {
		pem, err := os.ReadFile(i.CAFile)
		if err != nil {
			return nil, fmt.Errorf("issuer %s: %w", i.Issuer, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("issuer %s: %s holds no certificate", i.Issuer, i.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Transport: bounded{transport}, Timeout: jwksTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// bounded cuts answers short.
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

// run keeps the keys fresh until the context ends.
func (i *issuer) run(ctx context.Context) {
	if i.JWKSURL != "" {
		i.follow(ctx)
		<-ctx.Done()
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

func (i *issuer) follow(ctx context.Context) {
	client, err := i.client()
	if err != nil {
		i.log.Error("the keys of the issuer cannot be fetched", "error", err)
		return
	}
	store, err := jwkset.NewStorageFromHTTP(i.JWKSURL, jwkset.HTTPClientStorageOptions{
		Client: client, Ctx: ctx, HTTPTimeout: jwksTimeout, RefreshInterval: jwksRefresh, NoErrorReturnFirstHTTPReq: true,
		RefreshErrorHandler: func(_ context.Context, err error) {
			i.log.Warn("the keys of the issuer could not be fetched, the last ones stay in force", "error", err)
		},
	})
	if err == nil {
		store, err = jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
			HTTPURLs:          map[string]jwkset.Storage{i.JWKSURL: store},
			RateLimitWaitMax:  jwksTimeout,
			RefreshUnknownKID: rate.NewLimiter(rate.Every(jwksUnknown), 1),
		})
	}
	var keys keyfunc.Keyfunc
	if err == nil {
		keys, err = keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: store})
	}
	if err != nil {
		i.log.Error("the keys of the issuer cannot be fetched", "error", err)
		return
	}
	i.keys.Store(&keys)
}

// key finds the key a token says it was signed with.
func (i *issuer) key(ctx context.Context, t *jwt.Token) (any, error) {
	if !slices.Contains(i.Algorithms, t.Method.Alg()) {
		return nil, refuse(codeToken, "tokens of "+i.Issuer+" must not be signed with "+t.Method.Alg())
	}
	keys := i.keys.Load()
	if keys == nil {
		return nil, errs.New(errs.Unavailable, "the keys of the issuer %s have not been fetched yet", i.Issuer).After(time.Second)
	}
	key, err := (*keys).KeyfuncCtx(ctx)(t)
	if err != nil {
		i.log.Debug("no key for a token", "error", err)
		return nil, refuse(codeToken, "no key of "+i.Issuer+" has the kid of the token")
	}
	return key, nil
}

// caller makes the caller of a verified token.
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
	for _, s := range claims.Scopes() {
		if slices.Contains(i.Scopes, s) && !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return &Caller{Subject: CanonicalID(strings.Clone(subject)), Scopes: scopes}, nil
}

// runAll keeps the keys of all issuers fresh.
func runAll(ctx context.Context, issuers map[string]*issuer) error {
	var all sync.WaitGroup
	for _, i := range issuers {
		all.Go(func() { i.run(ctx) })
	}
	all.Wait()
	if err := ctx.Err(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
