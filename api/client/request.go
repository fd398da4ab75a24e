package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openmep/mep/api/internal/retry"
)

const (
	// maxAnswer bounds the part of a response body that is read: about 90,000 services of ordinary size.
	maxAnswer = 64 << 20
	// maxProblem bounds the part of an error's body that is read.
	maxProblem = 64 << 10
	// maxAttempts is the maximum number of times that a request is sent.
	maxAttempts = 4
	// maxRetryWait is the longest wait between two attempts. When the platform asks for a longer one, the error is left to the
	// caller.
	maxRetryWait = 10 * time.Second
)

// request describes a request to the platform.
type request struct {
	method      string
	root        string   // of the API; "" means service management
	path        []string // below the root of the API, unescaped
	query       url.Values
	body        any
	contentType string // of the body; "" means application/json
	accept      string // "" means application/json
	ifMatch     string
	lastEventID string
	repeatable  bool // idempotent: may be sent again
}

// answer holds the header of the platform's response and the number of attempts it took.
type answer struct {
	header   http.Header
	attempts int
}

// do sends a request, retrying it if appropriate, and decodes the response body into into. Without a body, do leaves into
// unchanged.
func (c *Client) do(ctx context.Context, r request, into any) (answer, error) {
	var ans answer
	target, err := c.url(&r)
	if err != nil {
		return ans, err
	}
	var body []byte
	if r.body != nil {
		if body, err = json.Marshal(r.body); err != nil {
			return ans, fmt.Errorf("%s %s: %w", r.method, target, err)
		}
	}
	for renewed := false; ; {
		ans.attempts++
		var token string
		ans.header, token, err = c.send(ctx, &r, target, body, into)
		if c.refused != nil && !renewed && token != "" && isUnauthorized(err) {
			c.refused(token)
			renewed = true
			continue
		}
		wait, worth := retryWait(err, ans.attempts)
		if !worth || !r.repeatable || ans.attempts == maxAttempts {
			return ans, err
		}
		// The platform's error is more informative than an expired context.
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait || !retry.Sleep(ctx, wait) {
			return ans, err
		}
	}
}

func isUnauthorized(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status() == http.StatusUnauthorized
}

func (c *Client) url(r *request) (string, error) {
	var b strings.Builder
	b.WriteString(c.root)
	b.WriteString(cmp.Or(r.root, serviceRoot))
	for _, segment := range r.path {
		if segment == "" || segment == "." || segment == ".." {
			return "", fmt.Errorf("%s of /%s: %q is no id", r.method, strings.Join(r.path, "/"), segment)
		}
		b.WriteByte('/')
		b.WriteString(url.PathEscape(segment))
	}
	if len(r.query) > 0 {
		b.WriteByte('?')
		b.WriteString(r.query.Encode())
	}
	return b.String(), nil
}

// send makes one attempt and returns the token that was used.
func (c *Client) send(ctx context.Context, r *request, target string, body []byte, into any) (header http.Header, token string, err error) {
	req, token, err := c.prepare(ctx, r, target, body)
	if err != nil {
		return nil, token, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, token, err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return resp.Header, token, newError(resp)
	}
	if resp.StatusCode != http.StatusNoContent && into != nil {
		if err := decode(resp, into); err != nil {
			return resp.Header, token, fmt.Errorf("%s %s: %s with a body that cannot be read: %w", r.method, target, resp.Status, err)
		}
	}
	return resp.Header, token, nil
}

// prepare builds the HTTP request for one attempt and returns the token that it carries.
func (c *Client) prepare(ctx context.Context, r *request, target string, body []byte) (req *http.Request, token string, err error) {
	if req, err = http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(body)); err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", cmp.Or(r.accept, "application/json"))
	req.Header.Set("User-Agent", "mep-client")
	if r.body != nil {
		req.Header.Set("Content-Type", cmp.Or(r.contentType, "application/json"))
	}
	if r.ifMatch != "" {
		req.Header.Set("If-Match", r.ifMatch)
	}
	if r.lastEventID != "" {
		req.Header.Set("Last-Event-ID", r.lastEventID)
	}
	if c.token != nil {
		if token, err = c.token(ctx); err != nil {
			return nil, "", fmt.Errorf("%s %s: no token: %w", r.method, target, err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, token, nil
}

func decode(resp *http.Response, into any) error {
	body := http.MaxBytesReader(nil, resp.Body, maxAnswer)
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, body, 1<<10) // drain the body so that the connection can be reused
	return nil
}

// retryWait reports whether an attempt that failed with err is worth repeating, and after which wait.
func retryWait(err error, attempts int) (time.Duration, bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status() != http.StatusServiceUnavailable && e.Status() != http.StatusTooManyRequests {
		return 0, false
	}
	if e.RetryAfter > 0 {
		return e.RetryAfter, e.RetryAfter <= maxRetryWait
	}
	return backoff(attempts, maxRetryWait), true
}

// backoff returns the wait after the given number of failures. It doubles from 0.2 s up to limit, with jitter over its upper
// half so that many apps do not retry at the same time.
func backoff(failures int, limit time.Duration) time.Duration {
	d := min(100*time.Millisecond<<min(failures, 16), limit)
	return between(d/2, d)
}

func between(least, most time.Duration) time.Duration {
	return least + rand.N(most-least+1)
}
