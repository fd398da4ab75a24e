package reconcile

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/pki"
)

const secret auth.Secret = "correct horse battery staple"

// controller is a server that answers with fn.
func controller(t *testing.T, fn http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(fn)
	t.Cleanup(srv.Close)
	return srv.URL
}

func webhook(t *testing.T, cfg WebhookConfig) *Webhook {
	t.Helper()
	if cfg.Secret == "" {
		cfg.Secret = secret
	}
	w, err := NewWebhook(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(w.CloseIdle)
	return w
}

func someSet() Set {
	priority := 1
	return Set{
		Kind: mm5.TrafficRules, AppInstanceID: "app-1", AppName: "camera", Generation: 7,
		Traffic: []mp1.TrafficRule{
			{TrafficRuleID: "r1", FilterType: mp1.FilterFlow, Priority: &priority, Action: mp1.ActionDrop, State: mp1.RuleActive},
			{TrafficRuleID: "r2", FilterType: mp1.FilterFlow, Priority: &priority, Action: mp1.ActionDrop, State: mp1.RuleActive},
		},
	}
}

func TestWhatIsPosted(t *testing.T) {
	traffic := someSet()
	dns := Set{
		Kind: mm5.DNSRules, AppInstanceID: "app-2", Generation: 3,
		DNS: []mp1.DNSRule{{DNSRuleID: "d", DomainName: "a.example", IPAddressType: mp1.IPv4, IPAddress: "10.0.0.1", State: mp1.RuleActive}},
	}
	for _, c := range []struct {
		name, id, body string
		set            Set
	}{
		{"traffic rules", "app-1/TRAFFIC/7", `{"kind":"TRAFFIC","appInstanceId":"app-1","appName":"camera","generation":7,"trafficRules":[
			{"trafficRuleId":"r1","filterType":"FLOW","priority":1,"trafficFilter":null,"action":"DROP","state":"ACTIVE"},
			{"trafficRuleId":"r2","filterType":"FLOW","priority":1,"trafficFilter":null,"action":"DROP","state":"ACTIVE"}]}`, traffic},
		{"DNS rules", "app-2/DNS/3", `{"kind":"DNS","appInstanceId":"app-2","appName":"","generation":3,"dnsRules":[
			{"dnsRuleId":"d","domainName":"a.example","ipAddressType":"IP_V4","ipAddress":"10.0.0.1","state":"ACTIVE"}]}`, dns},
		{"no traffic rules", "a/TRAFFIC/0", `{"kind":"TRAFFIC","appInstanceId":"a","appName":"","generation":0,"trafficRules":[]}`,
			Set{Kind: mm5.TrafficRules, AppInstanceID: "a"}},
		{"no DNS rules", "a/DNS/0", `{"kind":"DNS","appInstanceId":"a","appName":"","generation":0,"dnsRules":[]}`,
			Set{Kind: mm5.DNSRules, AppInstanceID: "a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got *http.Request
			var body []byte
			w := webhook(t, WebhookConfig{URL: controller(t, func(w http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
				w.WriteHeader(http.StatusNoContent)
			}) + "/hook?site=1"})
			report, err := w.Apply(t.Context(), c.set)
			require.NoError(t, err)
			require.Empty(t, report.Failed)
			require.Equal(t, http.MethodPost, got.Method)
			require.Equal(t, "/hook?site=1", got.URL.String())
			require.JSONEq(t, c.body, string(body))
			require.Equal(t, "application/json", got.Header.Get("Content-Type"))
			require.Equal(t, c.id, got.Header.Get("X-Request-Id"))
			require.NotContains(t, got.Header, "Idempotency-Key")
			require.NoError(t, VerifyWebhook(secret, got.Header, body, time.Now(), time.Minute))
			require.Error(t, VerifyWebhook("another secret of some length", got.Header, body, time.Now(), time.Minute))
		})
	}
}

func TestAnswersToASet(t *testing.T) {
	problemDocument := `{"title":"Forbidden","status":403,"detail":"this plane takes no DROP rules"}`
	for _, c := range []struct {
		name       string
		status     int
		body       string
		header     [2]string
		set        Set
		failed     map[string]string
		err        string
		retryAfter time.Duration
	}{
		{name: "204", status: 204},
		{name: "no results", status: 200, body: `{}`},
		{name: "all applied", status: 200, body: `{"results":[{"ruleId":"r1","result":"APPLIED"},{"ruleId":"r2","result":"APPLIED"}]}`},
		{name: "members nobody knows", status: 200, body: `{"x":1,"results":[{"ruleId":"r1","result":"APPLIED","y":{}}]}`},
		{name: "one failed, one without a result", status: 200, body: ` {"results":[{"ruleId":"r2","result":"FAILED","reason":"full"}]}`,
			failed: map[string]string{"r2": "full"}},
		{name: "a failure counts most", status: 200,
			body:   `{"results":[{"ruleId":"r2","result":"FAILED","reason":"x"},{"ruleId":"r2","result":"APPLIED"}]}`,
			failed: map[string]string{"r2": "x"}},
		{name: "another result", status: 200, body: `{"results":[{"ruleId":"r1","result":"MAYBE"}]}`, err: "a result other than"},
		{name: "no body", status: 200, err: "not a JSON object"},
		{name: "null", status: 200, body: `null`, err: "not a JSON object"},
		{name: "a list", status: 200, body: `[]`, err: "not a JSON object"},
		{name: "cut off", status: 200, body: `{"results":[`, err: "cannot be read"},
		{name: "two objects", status: 200, body: `{}{}`, err: "cannot be read"},
		{name: "results of a wrong type", status: 200, body: `{"results":{"r1":"APPLIED"}}`, err: "cannot be read"},
		{name: "an endless stateId", status: 200, body: `{"stateId":"` + strings.Repeat("x", 257) + `"}`, err: "stateId"},
		{name: "huge", status: 200, body: `{"x":"` + strings.Repeat("x", 2<<20) + `"}`, err: "more than 1048576 bytes"},
		{name: "202", status: 202, body: `{}`, err: "answered 202"},
		{name: "a refusal with a problem document", status: 403, body: problemDocument,
			failed: map[string]string{"r1": "this plane takes no DROP rules", "r2": "this plane takes no DROP rules"}},
		{name: "a refusal with something else", status: 400, body: `<html>`,
			failed: map[string]string{"r1": "the controller answered 400", "r2": "the controller answered 400"}},
		{name: "a huge refusal", status: 422, body: `{"detail":"x"` + strings.Repeat(" ", 2<<20) + `}`,
			failed: map[string]string{"r1": "the controller answered 422", "r2": "the controller answered 422"}},
		{name: "a refusal to take everything back", status: 403, body: problemDocument,
			set: Set{Kind: mm5.TrafficRules, AppInstanceID: "a"}, err: "answered 403"},
		{name: "408", status: 408, err: "answered 408"},
		{name: "425", status: 425, err: "answered 425"},
		{name: "429", status: 429, err: "answered 429"},
		{name: "429 with seconds", status: 429, header: [2]string{"Retry-After", "7"}, err: "answered 429", retryAfter: 7 * time.Second},
		{name: "503 with a date", status: 503, header: [2]string{"Retry-After", noon.Add(time.Minute).Format(http.TimeFormat)},
			err: "answered 503", retryAfter: time.Minute},
		{name: "503 with a date that has passed", status: 503, header: [2]string{"Retry-After", noon.Add(-time.Minute).Format(http.TimeFormat)},
			err: "answered 503"},
		{name: "503 with nonsense", status: 503, header: [2]string{"Retry-After", "soon"}, err: "answered 503"},
		{name: "500 does not say when", status: 500, header: [2]string{"Retry-After", "7"}, err: "answered 500"},
		{name: "a redirect", status: 307, header: [2]string{"Location", "/elsewhere"}, err: "answered 307"},
		{name: "a redirect as after a form", status: 303, header: [2]string{"Location", "/elsewhere"}, err: "answered 303"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := webhook(t, WebhookConfig{now: func() time.Time { return noon }, URL: controller(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/hook" {
					t.Errorf("%s was called", r.URL.Path)
				}
				if c.header[0] != "" {
					w.Header().Set(c.header[0], c.header[1])
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}) + "/hook"})
			set := c.set
			if set.AppInstanceID == "" {
				set = someSet()
			}
			report, err := w.Apply(t.Context(), set)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				if e, ok := errors.AsType[*errs.Error](err); ok {
					require.Equal(t, c.retryAfter, e.RetryAfter)
				}
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.failed, report.Failed)
		})
	}
}

func TestStatesOfAController(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		state  string
		err    string
	}{
		{"it says", 200, `{"stateId":"s1"}`, "s1", ""},
		{"it does not say, but its answers do", 200, `{}`, "posted", ""},
		{"nothing at all", 204, ``, "posted", ""},
		{"there is no GET", 405, ``, "posted", ""},
		{"there is nothing to get", 404, ``, "posted", ""},
		{"malformed", 200, `"s1"`, "", "not a JSON object"},
		{"it may not be asked", 401, ``, "", "answered 401"},
		{"it is down", 503, ``, "", "answered 503"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := webhook(t, WebhookConfig{URL: controller(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if VerifyWebhook(secret, r.Header, body, time.Now(), time.Minute) != nil {
					w.WriteHeader(http.StatusTeapot)
					return
				}
				if r.Method == http.MethodPost {
					_, _ = io.WriteString(w, `{"stateId":"posted"}`)
					return
				}
				if len(body) > 0 {
					w.WriteHeader(http.StatusTeapot)
					return
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})})
			if c.err != "" {
				_, err := w.State(t.Context())
				require.ErrorContains(t, err, c.err)
				return
			}
			state, err := w.State(t.Context())
			require.NoError(t, err)
			if c.state == "posted" {
				require.Empty(t, state, "nothing was posted yet")
				_, err = w.Apply(t.Context(), someSet())
				require.NoError(t, err)
				state, err = w.State(t.Context())
				require.NoError(t, err)
			}
			require.Equal(t, c.state, state)
		})
	}
}

func TestAnAnswerThatDoesNotEnd(t *testing.T) {
	release := make(chan struct{})
	w := webhook(t, WebhookConfig{URL: controller(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"results":[`)
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := w.Apply(ctx, someSet())
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestASilentControllerIsLeftAfterTheTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() // accepts connections and never answers
	w := webhook(t, WebhookConfig{URL: "http://" + l.Addr().String(), Timeout: 20 * time.Millisecond})
	_, err = w.Apply(t.Context(), someSet())
	require.Error(t, err)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}

func TestAConnectionThatWasClosedMeanwhileIsReplaced(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer srv.Close()
	w := webhook(t, WebhookConfig{URL: srv.URL})
	for range 20 {
		_, err := w.Apply(t.Context(), someSet())
		require.NoError(t, err)
		srv.CloseClientConnections()
	}
}

func TestErrorsShowNeitherTheURLNorTheSecret(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close()) // nobody listens
	w := webhook(t, WebhookConfig{URL: "http://" + l.Addr().String() + "/hook?token=hidden"})
	_, err = w.Apply(t.Context(), someSet())
	require.Error(t, err)
	_, stateErr := w.State(t.Context())
	require.Error(t, stateErr)
	for _, text := range []string{err.Error(), stateErr.Error(), fmt.Sprintf("%+v", WebhookConfig{Secret: secret})} {
		require.NotContains(t, text, "hidden")
		require.NotContains(t, text, string(secret))
	}
}

func TestConfigurationsOfAWebhookThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  WebhookConfig
		err  string
	}{
		{"no URL", WebhookConfig{}, "must be an absolute http or https URL"},
		{"not a URL", WebhookConfig{URL: "http://[::1"}, "is not a URL"},
		{"another scheme", WebhookConfig{URL: "ftp://localhost"}, "must be an absolute http or https URL"},
		{"no host", WebhookConfig{URL: "https:///hook"}, "must name a host"},
		{"a user", WebhookConfig{URL: "https://me:hidden@example.com"}, "must not carry a user name"},
		{"a fragment", WebhookConfig{URL: "https://example.com/#x"}, "must not have a fragment"},
		{"in clear over a network", WebhookConfig{URL: "http://192.0.2.1/hook"}, "must be an https URL"},
		{"in clear to a name", WebhookConfig{URL: "http://localhost.example.com/hook"}, "must be an https URL"},
		{"a short secret", WebhookConfig{URL: "http://127.0.0.1/", Secret: "hidden"}, "at least 16 bytes"},
		{"certificates without TLS", WebhookConfig{URL: "http://[::1]:80/", CAFile: "ca.pem"}, "not an https URL"},
		{"a certificate without a key", WebhookConfig{URL: "https://example.com", CertFile: "c.pem"}, "a certificate needs a key"},
		{"a CA that is not there", WebhookConfig{URL: "https://example.com", CAFile: "/nonexistent"}, "/nonexistent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cfg.Secret == "" {
				c.cfg.Secret = secret
			}
			_, err := NewWebhook(c.cfg, slog.New(slog.DiscardHandler), nil)
			require.ErrorContains(t, err, c.err)
			require.NotContains(t, err.Error(), "hidden")
		})
	}
}

func TestNamesAreNotTrustedToBeLoopback(t *testing.T) {
	require.NoError(t, onlyLoopback("tcp", "127.0.0.2:80", nil))
	require.NoError(t, onlyLoopback("tcp", "[::1]:80", nil))
	require.NoError(t, onlyLoopback("tcp", "[::ffff:127.0.0.1]:80", nil))
	require.Error(t, onlyLoopback("tcp", "192.0.2.1:80", nil), "what localhost may resolve to")
	require.Error(t, onlyLoopback("tcp", "nonsense", nil))
}

func TestBothSidesShowACertificate(t *testing.T) {
	dir := t.TempDir()
	server, err := pki.Open(pki.Config{Dir: dir, Names: func() ([]string, error) { return []string{"127.0.0.1"}, nil }})
	require.NoError(t, err)
	var shown []*x509.Certificate
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown = r.TLS.PeerCertificates
		w.WriteHeader(http.StatusNoContent)
	}))
	srv.TLS = server.ServerConfig()
	cert, err := srv.TLS.GetCertificate(nil)
	require.NoError(t, err)
	srv.TLS.Certificates = []tls.Certificate{*cert} // otherwise httptest sets its own
	srv.TLS.ClientAuth = tls.RequestClientCert
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.StartTLS()
	defer srv.Close()
	certFile, keyFile := selfSigned(t, dir)

	w := webhook(t, WebhookConfig{URL: srv.URL, CAFile: server.CAFile(), CertFile: certFile, KeyFile: keyFile})
	defer w.CloseIdle()
	_, err = w.Apply(t.Context(), someSet())
	require.NoError(t, err)
	require.Len(t, shown, 1)
	require.Equal(t, big.NewInt(42), shown[0].SerialNumber)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, w.Run(ctx))

	stranger := webhook(t, WebhookConfig{URL: srv.URL})
	_, err = stranger.Apply(t.Context(), someSet())
	require.Error(t, err, "the CA is not one of the operating system's")
}

// selfSigned makes a certificate and its key.
func selfSigned(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(42), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	return write("client.pem", "CERTIFICATE", cert), write("client.key", "PRIVATE KEY", pkcs8)
}

// plane is a typical controller: it keeps the rules it is sent until it is restarted.
type plane struct {
	mu    sync.Mutex
	state int
	rules map[string][]string // by app
}

func (p *plane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if VerifyWebhook(secret, r.Header, body, time.Now(), time.Minute) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := answer{StateID: fmt.Sprint(p.state), Results: []result{}}
	if r.Method == http.MethodPost {
		var set payload
		if json.Unmarshal(body, &set) != nil || set.TrafficRules == nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		delete(p.rules, set.AppInstanceID)
		for _, rule := range *set.TrafficRules {
			if strings.HasPrefix(rule.TrafficRuleID, "bad") {
				a.Results = append(a.Results, result{RuleID: rule.TrafficRuleID, Result: mm5.RuleFailed, Reason: "I do not like it"})
				continue
			}
			p.rules[set.AppInstanceID] = append(p.rules[set.AppInstanceID], rule.TrafficRuleID)
			a.Results = append(a.Results, result{RuleID: rule.TrafficRuleID, Result: mm5.RuleApplied})
		}
	}
	_ = json.NewEncoder(w).Encode(a)
}

func (p *plane) holds(app string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprint(p.rules[app])
}

func (p *plane) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state++
	clear(p.rules)
}

func TestAControllerIsKeptUpToDate(t *testing.T) {
	p, c := newPlatform(t), &plane{rules: make(map[string][]string)}
	w := webhook(t, WebhookConfig{URL: controller(t, c.ServeHTTP)})
	lead(t, p.reconciler(quick(), w), leader.Term{})
	p.declare(t, "a", 1, "bad", "good")
	status := p.awaitReport(t, "a", 1)
	require.Equal(t, []string{"good"}, status.Applied)
	require.Equal(t, map[string]string{"bad": "I do not like it"}, status.Failed)
	p.declare(t, "a", 2, "better", "good")
	require.Empty(t, p.awaitReport(t, "a", 2).Failed)
	require.Equal(t, "[better good]", c.holds("a"))
	c.restart()
	await(t, "it is told again", func() bool { return c.holds("a") == "[better good]" })
	p.remove(t, "a")
	p.awaitNoReport(t, "a")
	require.Equal(t, "[]", c.holds("a"))
}

func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"stateId":"s","results":[{"ruleId":"r","result":"FAILED","reason":"x"}]}`))
	f.Add(403, []byte(`{"detail":"no"}`))
	f.Add(200, []byte(`{"results":null}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		r := &response{status: status, body: body}
		if a, err := r.answer(); err == nil {
			require.True(t, json.Valid(body))
			require.LessOrEqual(t, len(a.StateID), maxStateID)
			require.LessOrEqual(t, len(a.report().Failed), len(a.Results))
		}
		require.NotEmpty(t, r.reason())
		kept := clip(r.reason())
		require.LessOrEqual(t, len([]rune(kept)), maxReason)
		require.Equal(t, kept, clip(kept), "what is kept stays as it is")
	})
}
