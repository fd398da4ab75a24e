package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openmep/mep/api/internal/retry"
)

const (
	// DefaultTimeout limits a request, from connecting to the end of the response, unless the HTTP client sets its own limit.
	DefaultTimeout = 15 * time.Second
	// idleTimeout is how long an idle connection is kept.
	idleTimeout = 90 * time.Second
	// refreshTimeout limits an attempt to replace a token that is still valid: the caller is better served with the present one.
	refreshTimeout = 5 * time.Second
	// maxAttempts is the number of requests a call of Token may send.
	maxAttempts = 4
	// maxRetryWait is the longest wait between two attempts. When the service asks for a longer one, Token returns the error.
	maxRetryWait = 10 * time.Second
	// maxPause is the longest pause after a failure, unless the service asks for more.
	maxPause = 10 * time.Second
	// maxLockPause is the longest pause the service can ask for, for example because the access key is locked.
	maxLockPause = 15 * time.Minute
)

// Config configures a Source.
type Config struct {
	// URL is the base URL of the token service, absolute, such as "https://mep.example:8443".
	URL string
	// AccessKeyID is 20 letters, digits and characters of "_+/=".
	AccessKeyID string
	// SecretKey is 64 letters, digits and characters of "_+/=".
	SecretKey Secret
	// Scopes lists the scopes to request; when it is empty, the service decides. They are not sent when Signed is set.
	Scopes []string
	// HTTPClient sends the requests and determines timeouts, proxies and TLS; nil stands for a client with DefaultTimeout.
	// Redirects are never followed, whatever its CheckRedirect, so that the secret goes to the service alone.
	HTTPClient *http.Client
	// Signed requests tokens with POST /mep/token and the signature SDK-HMAC-SHA256, instead of with OAuth2 client credentials.
	// The secret key is then not sent.
	Signed bool
}

// Source caches a token of the platform's token service and replaces it before it expires. It is safe for concurrent use and
// starts no goroutines: tokens are fetched by the callers of Token.
type Source struct {
	target      string
	accessKeyID string
	secretKey   Secret
	scopes      []string
	signed      bool
	http        *http.Client
	signedAt    time.Time // owned by the fetch in flight

	mu       sync.Mutex
	present  *token
	fetching chan struct{} // closed when the fetch in flight ends; nil when there is none
	failures int           // in a row
	failed   error         // error of the last fetch
	resume   time.Time     // no fetch before this time
}

// NewSource returns a source of tokens. It sends no request yet.
func NewSource(cfg Config) (*Source, error) {
	if err := checkBase(cfg.URL); err != nil {
		return nil, fmt.Errorf("the URL of the token service %w", err)
	}
	if err := checkKeys(cfg.AccessKeyID, cfg.SecretKey); err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: DefaultTimeout}
	if cfg.HTTPClient != nil {
		*client = *cfg.HTTPClient
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	path := "/oauth2/token"
	if cfg.Signed {
		path = "/mep/token"
	}
	return &Source{
		target: strings.TrimRight(cfg.URL, "/") + path, accessKeyID: cfg.AccessKeyID, secretKey: cfg.SecretKey,
		scopes: slices.Clone(cfg.Scopes), signed: cfg.Signed, http: client,
	}, nil
}

// Token returns a token that is valid now. It fetches one when there is none, and replaces the present one when less than a fifth
// of its life is left; while that fails, Token returns the present one as long as it is valid. One caller fetches at a time. The
// others get the present token, or wait for the new one when there is none.
//
// After a 503 or 429 response Token retries a few times, as the service asks and as far as ctx allows. After any failure no
// request is sent for a moment, during which other callers get the same error. An error response is returned as an *Error, for
// errors.As.
func (s *Source) Token(ctx context.Context) (string, error) {
	for attempt := 1; ; attempt++ {
		text, resume, err := s.once(ctx)
		if err == nil || attempt == maxAttempts || !passes(err) {
			return text, err
		}
		wait := time.Until(resume)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait || wait > maxRetryWait || !retry.Sleep(ctx, wait) {
			return "", err
		}
	}
}

// Invalidate discards a token that was refused, so that the next call of Token fetches another one. It does nothing when the token
// has already been replaced.
func (s *Source) Invalidate(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.present != nil && s.present.text == token {
		s.present = nil
	}
}

// once returns the present token if it will do. Otherwise it returns the result of its own fetch, of the fetch in flight, or the
// error of a recent one. resume is when the next fetch is allowed after an error.
func (s *Source) once(ctx context.Context) (text string, resume time.Time, err error) {
	for {
		s.mu.Lock()
		now := time.Now()
		valid, wait, paused := s.valid(now), s.fetching, now.Before(s.resume)
		switch {
		case valid != nil && (now.Before(valid.refresh) || wait != nil || paused):
			defer s.mu.Unlock()
			return valid.text, resume, nil
		case wait == nil && paused:
			defer s.mu.Unlock()
			return "", s.resume, s.failed
		case wait == nil:
			s.fetching = make(chan struct{})
			s.mu.Unlock()
			return s.lead(ctx, valid != nil)
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return "", resume, fmt.Errorf("wait for a token: %w", ctx.Err())
		}
	}
}

// valid returns the present token if it is valid at now, or nil.
func (s *Source) valid(now time.Time) *token {
	if s.present == nil || !now.Before(s.present.expires) {
		return nil
	}
	return s.present
}

// lead fetches a token on behalf of all callers. early reports that the present token is still valid.
func (s *Source) lead(ctx context.Context, early bool) (text string, resume time.Time, err error) {
	defer func() { // also when the HTTP client panics
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.fetching)
		s.fetching = nil
	}()
	attempt, cancel := ctx, func() {}
	if early {
		attempt, cancel = context.WithTimeout(ctx, refreshTimeout)
	}
	t, err := s.fetch(attempt)
	cancel()

	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		s.present, s.failures, s.failed, s.resume = t, 0, nil, time.Time{}
		return t.text, s.resume, nil
	case ctx.Err() == nil: // otherwise the caller gave up, which says nothing about the service
		s.failures++
		s.failed, s.resume = err, now.Add(pause(err, s.failures))
	}
	if valid := s.valid(now); valid != nil {
		return valid.text, resume, nil
	}
	return "", s.resume, err
}

// passes reports whether err is a response after which a retry may soon succeed.
func passes(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests)
}

// pause returns how long to wait after a number of consecutive failures: as long as the service asks, up to maxLockPause, or else
// a delay that doubles from 0.25 s and is randomised over its upper half, so that many apps do not come back at the same time.
func pause(err error, failures int) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok && e.RetryAfter > 0 {
		return min(e.RetryAfter, maxLockPause)
	}
	d := min(250*time.Millisecond<<min(failures-1, 16), maxPause)
	return d/2 + rand.N(d/2+1)
}
