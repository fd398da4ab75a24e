package reconcile

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/pki"
)

// MinSecret is the minimum length of a webhook's secret in bytes.
const MinSecret = 16

// WebhookConfig says how to reach a controller.
type WebhookConfig struct {
	// URL is where sets are posted: an https URL, or an http URL of a loopback address.
	URL string
	// Secret signs the calls; at least MinSecret bytes.
	Secret auth.Secret
	// CAFile is a PEM file of the CAs that may issue the controller's certificate; if empty, those of the operating system.
	CAFile string
	// CertFile and KeyFile are PEM files of the client certificate and its key; if empty, none is presented.
	CertFile, KeyFile string
	// Timeout bounds one call, from connecting to the end of the response; default 10 s.
	Timeout time.Duration
	// Name identifies the certificates in metrics; default "webhook".
	Name string

	now func() time.Time
}

// Webhook is a driver that posts sets to a controller.
//
// The body is a JSON object with kind, appInstanceId, appName, generation and one list, trafficRules or dnsRules, of all rules
// that should be in force; an empty list means that nothing of the app instance should be in force any more. Calls are signed,
// see [VerifyWebhook]. X-Request-Id is {appInstanceId}/{kind}/{generation}. It is the same when the same set is sent again, which
// the controller must then apply again in full.
//
// The controller answers 204 if all rules are in force, or 200 with {"stateId", "results": [{"ruleId", "result", "reason"}]},
// where result is APPLIED or FAILED. Rules without a result are in force. The stateId changes when the controller lost its rules;
// a GET of the URL returns it, too. A 4xx other than 408, 425 and 429 refuses all rules. After such a 4xx for an empty list, and
// after any other status, the call is repeated; after 429 and 503, not before Retry-After.
type Webhook struct {
	url     string
	secret  auth.Secret
	certs   *pki.Client // nil without TLS
	http    *http.Client
	now     func() time.Time
	stateID atomic.Value // the last stateId in a response to a POST; a string
}

// NewWebhook returns a driver. Errors are about the configuration, those about files a *pki.Fault; none reveals the secret.
func NewWebhook(cfg WebhookConfig, log *slog.Logger, reg prometheus.Registerer) (*Webhook, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Name == "" {
		cfg.Name = "webhook"
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	secure, err := checkURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("the URL of the webhook %w", err)
	}
	if len(cfg.Secret) < MinSecret {
		return nil, fmt.Errorf("the secret of the webhook must have at least %d bytes", MinSecret)
	}
	w := &Webhook{url: cfg.URL, secret: cfg.Secret, now: cfg.now}
	dialer := &net.Dialer{Timeout: cfg.Timeout}
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		Proxy:                  nil, // the proxy settings of the environment are not meant for these calls
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        60 * time.Second,
		ResponseHeaderTimeout:  cfg.Timeout,
		MaxResponseHeaderBytes: 32 << 10,
		DisableCompression:     true,
	}
	if secure {
		w.certs, err = pki.OpenClient(pki.ClientConfig{
			Name: cfg.Name, CAFile: cfg.CAFile, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile, Log: log, Registerer: reg,
		})
		if err != nil {
			return nil, err
		}
		transport.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			// Each connection gets its own configuration, because the CAs of an existing one do not change.
			secured := tls.Dialer{NetDialer: dialer, Config: w.certs.Config()}
			return secured.DialContext(ctx, network, addr)
		}
	} else {
		if cfg.CAFile != "" || cfg.CertFile != "" || cfg.KeyFile != "" {
			return nil, errors.New("the webhook has certificates, but its URL is not an https URL")
		}
		dialer.Control = onlyLoopback
	}
	w.http = &http.Client{
		Timeout: cfg.Timeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w, nil
}

// checkURL reports whether a URL asks for TLS. The error says why the URL is refused, as the end of a sentence that starts with
// the name of the URL. It does not show the URL itself, which may hold a secret.
func checkURL(ref string) (secure bool, err error) {
	u, err := url.Parse(ref)
	switch {
	case err != nil:
		return false, errors.New("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return false, errors.New("must be an absolute http or https URL")
	case u.Hostname() == "":
		return false, errors.New("must name a host")
	case u.User != nil:
		return false, errors.New("must not carry a user name or password")
	case u.Fragment != "":
		return false, errors.New("must not have a fragment")
	case u.Scheme == "https" || u.Hostname() == "localhost":
		return u.Scheme == "https", nil
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.Unmap().IsLoopback() {
		return false, nil
	}
	return false, errors.New("must be an https URL: http is only for loopback addresses")
}

// onlyLoopback refuses connections to addresses other than loopback, whatever a name resolves to: they must not carry clear text.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	if ap, err := netip.ParseAddrPort(address); err != nil || !ap.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%s is not a loopback address: http is only for those", address)
	}
	return nil
}

// Run reloads the certificates when their files change, until ctx ends. It returns nil.
func (w *Webhook) Run(ctx context.Context) error {
	if w.certs == nil {
		<-ctx.Done()
		return nil
	}
	return w.certs.Run(ctx)
}

// CloseIdle closes the idle connections.
func (w *Webhook) CloseIdle() { w.http.CloseIdleConnections() }

// Name implements Driver.
func (w *Webhook) Name() string { return "webhook" }

// payload is the body of a POST.
type payload struct {
	Kind          mm5.RuleKind       `json:"kind"`
	AppInstanceID string             `json:"appInstanceId"`
	AppName       string             `json:"appName"`
	Generation    int64              `json:"generation"`
	TrafficRules  *[]mp1.TrafficRule `json:"trafficRules,omitempty"`
	DNSRules      *[]mp1.DNSRule     `json:"dnsRules,omitempty"`
}

func newPayload(set *Set) payload {
	p := payload{Kind: set.Kind, AppInstanceID: set.AppInstanceID, AppName: set.AppName, Generation: set.Generation}
	if set.Kind == mm5.DNSRules {
		rules := append([]mp1.DNSRule{}, set.DNS...)
		p.DNSRules = &rules
	} else {
		rules := append([]mp1.TrafficRule{}, set.Traffic...)
		p.TrafficRules = &rules
	}
	return p
}

// Apply implements Driver.
func (w *Webhook) Apply(ctx context.Context, set Set) (Report, error) {
	body, err := json.Marshal(newPayload(&set))
	if err != nil {
		return Report{}, err
	}
	id := fmt.Sprintf("%s/%s/%d", set.AppInstanceID, set.Kind, set.Generation)
	r, err := w.call(ctx, http.MethodPost, id, body)
	if err != nil {
		return Report{}, err
	}
	switch {
	case r.status == http.StatusNoContent:
		return Report{}, nil
	case r.status == http.StatusOK:
		a, err := r.answer()
		if err != nil {
			return Report{}, err
		}
		if a.StateID != "" {
			w.stateID.Store(a.StateID)
		}
		return a.report(), nil
	case r.refusal() && set.size() > 0:
		report := Report{Failed: make(map[string]string)}
		for _, id := range set.RuleIDs() {
			report.Failed[id] = r.reason()
		}
		return report, nil
	}
	return Report{}, r.fault(w.now())
}

// State implements Driver. A controller without GET is identified by the stateId of its responses to POST.
func (w *Webhook) State(ctx context.Context) (string, error) {
	r, err := w.call(ctx, http.MethodGet, "", nil)
	if err != nil {
		return "", err
	}
	switch r.status {
	case http.StatusOK:
		a, err := r.answer()
		if err != nil {
			return "", err
		}
		if a.StateID != "" {
			return a.StateID, nil
		}
	case http.StatusNoContent, http.StatusNotFound, http.StatusMethodNotAllowed:
	default:
		return "", r.fault(w.now())
	}
	last, _ := w.stateID.Load().(string)
	return last, nil
}

// call makes one signed call. Errors reveal neither the URL nor the secret.
func (w *Webhook) call(ctx context.Context, method, id string, body []byte) (*response, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the URL of the webhook is not one")
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Request-Id", id)
		// Not sent, but it allows net/http to repeat the call if the connection it reused turns out to be closed.
		req.Header["Idempotency-Key"] = nil
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "mep")
	sign(req.Header, w.secret, body, w.now())
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, unnamed(err)
	}
	defer resp.Body.Close()
	r := &response{status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After")}
	r.body, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of the controller: %w", unnamed(err))
	}
	return r, nil
}

// unnamed strips the URL from an error of the HTTP client.
func unnamed(err error) error {
	if named, ok := errors.AsType[*url.Error](err); ok {
		return named.Err
	}
	return err
}

// fault returns the error for a response with an unusable status.
func (r *response) fault(now time.Time) error {
	err := errs.New(errs.Unavailable, "the controller answered %d", r.status)
	if r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable {
		if n, e := strconv.ParseUint(r.retryAfter, 10, 31); e == nil {
			return err.After(time.Duration(n) * time.Second)
		}
		if at, e := http.ParseTime(r.retryAfter); e == nil {
			return err.After(max(at.Sub(now), 0))
		}
	}
	return err
}
