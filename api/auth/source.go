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
	// DefaultTimeout bounds a request from the connection to the end of the answer, unless the HTTP client says otherwise.
	DefaultTimeout = 15 * time.Second
	// idleTimeout is for how long a connection is kept that nobody uses.
	idleTimeout = 90 * time.Second
	// refreshTimeout bounds an attempt to replace a token that is still valid: its holder is better served with that one.
	refreshTimeout = 5 * time.Second
	// maxAttempts is how often the service is asked for one token.
	maxAttempts = 4
	// maxRetryWait is the longest wait between two attempts. When the service asks for a longer one, the caller decides.
	maxRetryWait = 10 * time.Second
	// maxPause is the longest time for which the service is left alone after a failure, unless it asks for more.
	maxPause = 10 * time.Second
	// maxLockPause is the longest time for which it is left alone at its own request, as a locked access key is.
	maxLockPause = 15 * time.Minute
)

// Config says where a Source has its tokens from.
type Config struct {
	// URL is the base URL of the token service, absolute, such as "https://mep.example:8443".
	URL string
	// AccessKeyID is 20 letters, digits and characters of "_+/=".
	AccessKeyID string
	// SecretKey is 64 letters, digits and characters of "_+/=".
	SecretKey Secret
	// Scopes lists the scopes to ask for; none leaves them to the service. They are not sent when Signed is set.
	Scopes []string
	// HTTPClient sends the requests and decides about time-outs, proxies and TLS; nil stands for one with DefaultTimeout.
	// Redirects are not followed, whatever it says: a secret is for the service alone.
	HTTPClient *http.Client
	// Signed makes the source ask with POST /mep/token and the signature SDK-HMAC-SHA256, instead of with OAuth2 client
	// credentials: the secret key is not sent then.
	Signed bool
}

// Source keeps a token of the platform's token service and has it replaced in time. It is safe for concurrent use and runs
// nothing of its own: a token is fetched by whoever needs it.
type Source struct {
	target      string
	accessKeyID string
	secretKey   Secret
	scopes      []string
	signed      bool
	http        *http.Client
	signedAt    time.Time // belongs to the fetch under way

	mu       sync.Mutex
	present  *token
	fetching chan struct{} // is closed when the fetch under way has ended; nil when there is none
	failures int           // in a row
	failed   error         // of the last fetch
	resume   time.Time     // until then the service is left alone
}

// NewSource makes a source of tokens. It sends nothing yet.
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

// Token returns a token that is valid now. It fetches one when there is none, and another one when less than a fifth of its life
// is left; while that fails, the present one serves as long as it is valid. One caller fetches at a time. The others take the
// present token, or wait for the new one when there is none.
//
// After an answer 503 or 429 it tries again, a few times, when the service asks to and as far as ctx allows. After any failure the
// service is left alone for a moment, in which other callers get the same error. An answer that says no is an *Error, for
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

// Invalidate makes the source forget a token that was refused, so that the next call of Token fetches another one. A token that
// has been replaced already makes no difference.
func (s *Source) Invalidate(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.present != nil && s.present.text == token {
		s.present = nil
	}
}

// once returns the present token when it will do, else what a fetch comes to: one of its own, or one that another caller does or
// has done a moment ago. resume is until when the service is left alone after an error.
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

// valid returns the present token if it is valid at the time now, else nil.
func (s *Source) valid(now time.Time) *token {
	if s.present == nil || !now.Before(s.present.expires) {
		return nil
	}
	return s.present
}

// lead fetches a token for all callers. early says that there still is a valid one.
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
	case ctx.Err() == nil: // else it is the caller who gave up, which tells nothing about the service
		s.failures++
		s.failed, s.resume = err, now.Add(pause(err, s.failures))
	}
	if valid := s.valid(now); valid != nil {
		return valid.text, resume, nil
	}
	return "", s.resume, err
}

// passes reports whether the service has said that it may answer otherwise soon.
func passes(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests)
}

// pause is for how long the service is left alone after a number of failures: as long as it asks for within reason, else a time
// that doubles from 0.25 s and is spread over its upper half, so that many apps do not come back at the same time.
func pause(err error, failures int) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok && e.RetryAfter > 0 {
		return min(e.RetryAfter, maxLockPause)
	}
	d := min(250*time.Millisecond<<min(failures-1, 16), maxPause)
	return d/2 + rand.N(d/2+1)
}
