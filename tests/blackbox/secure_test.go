package blackbox

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// generous takes the rates away, for tests that are about something else.
func generous() harness.Option {
	return harness.Args("--auth-rate-source=0", "--auth-rate-key=0")
}

// patient lets as many failures pass as can be configured, and forgets them quickly.
func patient() harness.Option {
	return harness.Args("--auth-lockout-failures=50", "--auth-lockout-key-failures=50", "--auth-lockout-window=1s", "--auth-lockout-duration=1s")
}

// appOf is an app instance of the platform as the tests of Mp1 know it, with its credentials.
func appOf(t *testing.T, p *harness.Process) (app, harness.Keys) {
	t.Helper()
	made := p.NewApp(t)
	return app{Client: made.Client, id: made.AppInstanceID}, made.Keys
}

// characters returns n characters that keys may have.
func characters(n int) string {
	text := rand.Text()
	for len(text) < n {
		text += rand.Text()
	}
	return text[:n]
}

// oauthError checks that the token service refused a request with a code (RFC 6749 5.2), and returns the description.
func oauthError(t *testing.T, a *harness.Answer, status int, code string) string {
	t.Helper()
	a.Is(status)
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	e := a.Object()
	require.Equal(t, code, e["error"], "%s", a.Body)
	require.NotEmpty(t, e["error_description"])
	if status == http.StatusUnauthorized {
		require.NotEmpty(t, a.Header.Get("WWW-Authenticate"))
	}
	return e["error_description"].(string)
}

// unauthenticated checks that a request was refused for want of a good token, and returns what the challenge says.
func unauthenticated(t *testing.T, a *harness.Answer, code string) string {
	t.Helper()
	a.Problem(http.StatusUnauthorized)
	challenge := a.Header.Get("WWW-Authenticate")
	require.True(t, strings.HasPrefix(challenge, "Bearer realm="), challenge)
	if code == "" {
		require.NotContains(t, challenge, "error=", "RFC 6750 3.1: no error code for a request without a token")
	} else {
		require.Contains(t, challenge, `error="`+code+`"`)
	}
	require.Contains(t, challenge, `error_description="`)
	return challenge
}

// signature signs requests for tokens as EdgeGallery's mep-agent does. It is written after the facts of section 2.1 and shares
// no code with the platform.
type signature struct {
	harness.Keys
	date    string   // basic ISO; default: now
	host    string   // default: that of the request
	headers []string // what is signed besides host and x-sdk-date; default: content-type
	body    []byte   // whose hash is signed
}

func (s signature) option() harness.RequestOption {
	return func(r *http.Request) {
		if s.date == "" {
			s.date = time.Now().UTC().Format("20060102T150405Z")
		}
		if s.host != "" {
			r.Host = s.host
		}
		if r.Header.Get("Content-Type") == "" {
			r.Header.Set("Content-Type", "application/json")
		}
		r.Header["X-Sdk-Date"] = []string{s.date}
		if s.headers == nil {
			s.headers = []string{"content-type"}
		}
		names := append([]string{"host", "x-sdk-date"}, s.headers...)
		slices.Sort(names)
		var lines strings.Builder
		for _, name := range names {
			value := strings.TrimSpace(r.Header.Get(name))
			if name == "host" {
				value = r.Host
			}
			lines.WriteString(name + ":" + value + "\n")
		}
		payload := sha256.Sum256(s.body)
		canonical := strings.Join([]string{
			"POST", strings.TrimSuffix(r.URL.Path, "/") + "/", r.URL.RawQuery, lines.String(), strings.Join(names, ";"), hex.EncodeToString(payload[:]),
		}, "\n")
		hash := sha256.Sum256([]byte(canonical))
		mac := hmac.New(sha256.New, []byte(s.SecretKey))
		_, _ = mac.Write([]byte("SDK-HMAC-SHA256\n" + s.date + "\n" + hex.EncodeToString(hash[:])))
		r.Header.Set("Authorization", fmt.Sprintf("SDK-HMAC-SHA256 Access=%s, SignedHeaders=%s, Signature=%s",
			s.AccessKeyID, strings.Join(names, ";"), hex.EncodeToString(mac.Sum(nil))))
	}
}

// ask exchanges the signature for a token.
func (s signature) ask(c *harness.Client, options ...harness.RequestOption) *harness.Answer {
	c.TB().Helper()
	return c.Post("/mep/token", nil, append([]harness.RequestOption{s.option()}, options...)...)
}

// aged is the date of a request that was signed some time ago; requests of different ages have different signatures.
func aged(ago time.Duration) string {
	return time.Now().Add(-ago).UTC().Format("20060102T150405Z")
}

// claims reads the payload of a token without checking it.
func claims(t *testing.T, token string) object {
	t.Helper()
	return tokenPart(t, token, 1)
}

// tokenPart decodes the header (0) or the payload (1) of a token.
func tokenPart(t *testing.T, token string, part int) object {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3, "a JWT in the compact form")
	data, err := base64.RawURLEncoding.DecodeString(parts[part])
	require.NoError(t, err)
	var o object
	require.NoError(t, json.Unmarshal(data, &o))
	return o
}

// mepCLI runs a command of mep on the data directory of a process.
func mepCLI(t *testing.T, p *harness.Process, args ...string) harness.Outcome {
	t.Helper()
	return harness.Run(t, "mep", append(args, "--data-dir", p.DataDir))
}

// written reads a file.
func written(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// holding lists the files below a directory that have a text in them.
func holding(t *testing.T, dir, text string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // replaced meanwhile
		}
		if bytes.Contains(data, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	require.NoError(t, err)
	return found
}

// auditOf reads the audit stream of a process until an entry is as wanted, and returns that.
func auditOf(t *testing.T, p *harness.Process, what string, wanted func(object) bool) object {
	t.Helper()
	var found object
	harness.Eventually(t, "the audit stream has "+what, func() error {
		data, err := os.ReadFile(filepath.Join(p.DataDir, "audit", "audit.log"))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			var e object
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			if wanted(e) {
				found = e
				return nil
			}
		}
		return fmt.Errorf("it has\n%s", data)
	})
	return found
}
