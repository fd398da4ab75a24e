package extauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/errs"
)

const (
	// DefaultTimeout bounds a question if the policy has no timeout.
	DefaultTimeout = time.Second
	// MaxAnswer is the maximum size of the body of a refusal. A larger body is dropped.
	MaxAnswer = 64 << 10
	// MaxReturn is the maximum total size of the header fields that a 2xx response may add.
	MaxReturn = 16 << 10
)

// Decision is the result of a question. It may be shared and must not be modified.
type Decision struct {
	// Allowed reports whether the call may pass.
	Allowed bool
	// Unanswered reports whether the call passes only because there was no usable response and the policy fails open.
	Unanswered bool
	// Status, Body and Header are the response to a call that is refused: 401, 402 or 403; a body of at most MaxAnswer bytes, possibly
	// none; and the fields Content-Type and WWW-Authenticate, if present.
	Status int
	Body   []byte
	Header http.Header

	names    []string      // of the header fields that the policy forwards
	lifetime time.Duration // for which the decision may be cached
}

// Apply sets the header fields of the response in a request that passes. It removes fields of these names that the client sent, even if the
// response has none: the target would take them for those of the response.
func (d *Decision) Apply(request http.Header) {
	for _, name := range d.names {
		if values := d.Header[name]; len(values) > 0 {
			request[name] = slices.Clone(values)
		} else {
			delete(request, name)
		}
	}
}

// Authoriser asks the questions of one policy.
type Authoriser struct {
	policy    gateway.ExternalAuth
	shown     string // its URL without the query, which may hold a secret
	timeout   time.Duration
	transport http.RoundTripper
	log       *slog.Logger
	metrics   *Metrics

	headers, returned []string // in canonical form
	memory            *memory  // nil: nothing is cached
	failing           atomic.Bool
}

// New returns an authoriser for a policy that has passed its Check. The transport may be shared; it bounds the size of response headers and
// decides which addresses may be called. New returns errs.Invalid for a policy without a usable URL.
func New(policy *gateway.ExternalAuth, transport http.RoundTripper, log *slog.Logger, metrics *Metrics) (*Authoriser, error) {
	if err := gateway.CheckURL(policy.URL, "http", "https"); err != nil {
		return nil, errs.New(errs.Invalid, "externalAuth.url %s", err)
	}
	a := &Authoriser{
		policy: *policy, timeout: policy.Timeout.Or(DefaultTimeout), transport: transport, log: log, metrics: metrics,
		headers: canonical(policy.Headers), returned: canonical(policy.Return),
	}
	a.shown, _, _ = strings.Cut(policy.URL, "?")
	if a.timeout <= 0 {
		a.timeout = DefaultTimeout
	}
	if lifetime := policy.Cache.Or(0); lifetime > 0 {
		a.memory = newMemory(lifetime)
	}
	return a, nil
}

func canonical(names []string) []string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = http.CanonicalHeaderKey(name)
	}
	return list
}

// Headers returns the fields of a request that a question includes: those that the policy names. The values are shared with the request.
func (a *Authoriser) Headers(request http.Header) map[string][]string {
	var picked map[string][]string
	for _, name := range a.headers {
		if values := request[name]; len(values) > 0 {
			if picked == nil {
				picked = make(map[string][]string, len(a.headers))
			}
			picked[name] = values
		}
	}
	return picked
}

// Decide asks the question. It returns errs.Unavailable if there is no usable response and the policy does not fail open, and the error of
// the context if the context ends first.
func (a *Authoriser) Decide(ctx context.Context, question *gateway.ExternalAuthRequest) (*Decision, error) {
	d, err := a.decide(ctx, question)
	switch {
	case err == nil:
		return d, nil
	case ctx.Err() != nil:
		a.metrics.count(resultCancelled)
		return nil, ctx.Err()
	}
	result := resultFailed
	if isTimeout(err) {
		result = resultTimeout
	}
	a.metrics.count(result)
	if !a.failing.Swap(true) {
		a.log.WarnContext(ctx, "external authorisation gives no usable answer", slog.String("url", a.shown),
			slog.Bool("failOpen", a.policy.FailOpen), slog.String("reason", err.Error()))
	}
	if a.policy.FailOpen {
		return &Decision{Allowed: true, Unanswered: true, names: a.returned}, nil
	}
	return nil, errs.Wrap(errs.Unavailable, err, "whether this call may pass could not be found out; try again later").After(time.Second)
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout()
}

func (a *Authoriser) decide(ctx context.Context, question *gateway.ExternalAuthRequest) (*Decision, error) {
	body, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	if a.memory == nil || len(question.Body) > 0 {
		return a.ask(ctx, body)
	}
	bare := *question
	bare.RequestID = ""
	asked, err := json.Marshal(&bare) // encoding/json writes the members in a fixed order
	if err != nil {
		return nil, err
	}
	d, known, err := a.memory.get(ctx, asked, func(ctx context.Context) (*Decision, error) { return a.ask(ctx, body) })
	if err == nil && known {
		a.metrics.count(resultRemembered)
	}
	return d, err
}

// ask sends one request.
func (a *Authoriser) ask(ctx context.Context, body []byte) (*Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.policy.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "mep-gateway")
	resp, err := a.transport.RoundTrip(req) // not a client's Do, which would follow redirects
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	d := &Decision{Header: make(http.Header), lifetime: lifetime(resp.Header)}
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode <= 299:
		if err := a.allow(d, resp); err != nil {
			return nil, err
		}
		a.metrics.count(resultAllowed)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusPaymentRequired,
		resp.StatusCode == http.StatusForbidden:
		refuse(d, resp)
		a.metrics.count(resultRefused)
	default:
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	if a.failing.Swap(false) {
		a.log.InfoContext(ctx, "external authorisation answers again", slog.String("url", a.shown))
	}
	return d, nil
}

func (a *Authoriser) allow(d *Decision, resp *http.Response) error {
	d.Allowed, d.names = true, a.returned
	size := 0
	for _, name := range a.returned {
		for _, value := range resp.Header[name] {
			d.Header[name] = append(d.Header[name], value)
			size += len(name) + len(value)
		}
	}
	if size > MaxReturn {
		return fmt.Errorf("header fields of %d bytes", size)
	}
	// A body that is read to its end lets the connection be reused; a body that is not over soon is not worth waiting for.
	_, _ = io.CopyN(io.Discard, resp.Body, MaxAnswer)
	return nil
}

// refuse copies the response into d. A body that is not usable is left out; the call is refused all the same.
func refuse(d *Decision, resp *http.Response) {
	d.Status = resp.StatusCode
	if values := resp.Header["Www-Authenticate"]; len(values) > 0 {
		d.Header["Www-Authenticate"] = values
	}
	encoding := resp.Header.Get("Content-Encoding")
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if err != nil || len(body) == 0 || len(body) > MaxAnswer || encoding != "" && !strings.EqualFold(encoding, "identity") {
		return
	}
	kind := resp.Header.Get("Content-Type")
	if kind == "" && isText(body) {
		kind = "text/plain; charset=utf-8"
	}
	if _, _, err := mime.ParseMediaType(kind); err != nil {
		return // the client would have to guess the type of the body: better to leave it out
	}
	d.Body = body
	d.Header.Set("Content-Type", kind)
}

// isText reports whether a body is plain text.
func isText(body []byte) bool {
	return utf8.Valid(body) && !bytes.ContainsFunc(body, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' })
}
