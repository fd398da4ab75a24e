package blackbox

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestAFloodOfUnknownAccessKeysIsSurvived(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), harness.Args("--auth-rate-source=1000000", "--auth-rate-source-burst=1000000", "--auth-rate-key=1000", "--auth-rate-key-burst=1000"))
	keys := harness.Provision(p.Manager(t), nil)
	a, _ := appOf(t, p)
	keys.Fetch(p.Auth(t))
	before := p.PeakMemory()
	const sources, each = 8, 2500
	var all sync.WaitGroup
	var failed atomic.Int64
	for s := range sources {
		c := p.UncheckedAuthFrom(t, fmt.Sprintf("127.0.3.%d", s+1))
		for half := range 2 {
			all.Go(func() {
				for range each / 2 {
					k := harness.Keys{AccessKeyID: characters(20), SecretKey: "x"}
					var answer *harness.Answer
					var err error
					if half == 0 {
						answer, err = c.Try("POST", "/oauth2/token", "grant_type=client_credentials", harness.AsForm(), k.Basic())
					} else {
						answer, err = c.Try("POST", "/mep/token", nil, signature{Keys: k}.option())
					}
					if err != nil || answer.Status != 401 && answer.Status != 429 && answer.Status != 503 {
						failed.Add(1)
					}
				}
			})
		}
	}
	all.Wait()
	require.Zero(t, failed.Load(), "every request is answered, and none with a token")
	grown := p.PeakMemory() - before
	require.Less(t, grown, int64(128<<20), "the memory grew by %d MiB", grown>>20)
	keys.Fetch(p.Auth(t))
	a.Get(a.services()).Is(200)
	lines := 0
	for _, path := range holding(t, p.DataDir+"/audit", "token.issue") {
		lines += strings.Count(string(written(t, path)), "\n")
	}
	require.Less(t, lines, 20000, "the audit stream is not filled by strangers")
}

func TestBodiesThatNeverEndBlockNobody(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	keys := harness.Provision(p.Manager(t), nil)
	a, _ := appOf(t, p)
	for i := range 200 {
		listener, path := "auth", "/oauth2/token"
		if i%2 == 1 {
			listener, path = "mp1", "/mep/token"
		}
		conn := p.Dial(t, listener)
		_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: mep\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
			"Authorization: Basic eDp5\r\nContent-Length: 1000\r\n\r\ngrant", path)
		require.NoError(t, err)
	}
	for range 20 {
		keys.Fetch(p.Auth(t))
		a.Get(a.services()).Is(200)
	}
	t.Run("and are given up", func(t *testing.T) {
		conn := p.Dial(t, "auth")
		require.NoError(t, conn.SetDeadline(time.Now().Add(2*harness.Patience)))
		_, err := io.WriteString(conn, "POST /oauth2/token HTTP/1.1\r\nHost: mep\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\ngrant")
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			defer resp.Body.Close()
			require.Equal(t, 4, resp.StatusCode/100)
		}
	})
}

func TestBodiesOfTheTokenServiceOverTheLimit(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys := harness.Provision(p.Manager(t), nil)
	c := p.Auth(t)
	const limit = 64 << 10
	padded := func(size int) string {
		body := "grant_type=client_credentials&x="
		return body + strings.Repeat("a", size-len(body))
	}
	c.Post("/oauth2/token", padded(limit), harness.AsForm(), keys.Basic()).Is(200)
	c.Post("/oauth2/token", padded(limit+1), harness.AsForm(), keys.Basic()).Is(413)
	c.Post("/oauth2/token", strings.NewReader(padded(limit+1)), harness.AsForm(), keys.Basic()).Is(413) // of unknown length
	for _, path := range []string{"/mep/token", "/oauth2/revoke", "/oauth2/introspect"} {
		c.Post(path, padded(limit+1), harness.AsForm(), keys.Basic(), func(r *http.Request) {
			if path == "/mep/token" {
				signature{Keys: keys}.option()(r)
			}
		}).Is(413)
	}
	p.Manager(t).Put(harness.ConfsPath(keys.AppInstanceID), strings.Repeat(" ", limit+1)).Is(413)
	many := "grant_type=client_credentials" + strings.Repeat("&a", 30000)
	require.Contains(t, []int{200, 400}, c.Post("/oauth2/token", many, harness.AsForm(), keys.Basic()).Status)
	keys.Fetch(c)
}
