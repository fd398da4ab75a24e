package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/signing"
	"github.com/openmep/mep/tests/process"
)

// keyPair holds the credentials of an app.
type keyPair struct{ app, accessKeyID, secretKey string }

// basic returns the header line for HTTP Basic authentication with the pair.
func (k keyPair) basic() string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(k.accessKeyID+":"+k.secretKey)) + "\r\n" +
		"Content-Type: application/x-www-form-urlencoded\r\n"
}

// secured is a platform with TLS and tokens, and without rate limits on token requests.
type secured struct {
	*process.Process
	dir    string
	client *http.Client
	token  string // that of the manager
}

func startSecured(o *options, args ...string) (*secured, error) {
	dir := filepath.Join(o.dir, uuid.NewString())
	args = append([]string{"--data-dir", dir, "--auth-rate-source", "0", "--auth-rate-key", "0", "--auth-rate-failures", "0"}, args...)
	p, err := process.StartSecure(o.mep, o.dir, args...)
	if err != nil {
		return nil, err
	}
	s := &secured{Process: p, dir: dir}
	c, err := auth.LoadCredentials(filepath.Join(dir, "bootstrap", "mepm.json"))
	if err == nil {
		s.client, err = c.HTTPClient()
	}
	var source *auth.Source
	if err == nil {
		source, err = c.Source(s.client)
	}
	if err == nil {
		s.token, err = source.Token(context.Background())
	}
	if err != nil {
		p.Kill()
		return nil, err
	}
	return s, nil
}

func (s *secured) caFile() string { return filepath.Join(s.dir, "pki", "ca.crt") }

// provision creates an app with generated credentials.
func provision(client *http.Client, base, token string) (keyPair, error) {
	app := uuid.NewString()
	req, err := http.NewRequest(http.MethodPut, base+"/mep/appMng/v1/applications/"+app+"/confs",
		strings.NewReader(`{"appInfo":{"appName":"bench"},"authInfo":{"credentials":{}}}`))
	if err != nil {
		return keyPair{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return keyPair{}, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return keyPair{}, fmt.Errorf("PUT confs: %d %s %w", resp.StatusCode, answer, err)
	}
	var confs auth.Confs
	if err := json.Unmarshal(answer, &confs); err != nil {
		return keyPair{}, err
	}
	return keyPair{app, confs.AuthInfo.Credentials.AccessKeyID, string(confs.AuthInfo.Credentials.SecretKey)}, nil
}

// signings returns the number of bare ES256 signatures that all cores make per second.
func signings(d time.Duration) (float64, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, err
	}
	message := strings.Repeat("x", 460) // as long as header and payload of a token
	var count atomic.Int64
	var fault atomic.Pointer[error]
	var all sync.WaitGroup
	start := time.Now()
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for time.Since(start) < d {
				if _, err := jwt.SigningMethodES256.Sign(message, key); err != nil {
					fault.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	all.Wait()
	if err := fault.Load(); err != nil {
		return 0, *err
	}
	return float64(count.Load()) / time.Since(start).Seconds(), nil
}

// benchToken compares token requests over TLS with bare signatures. Each client has its own app.
func benchToken(o *options) error {
	s, err := startSecured(o)
	if err != nil {
		return err
	}
	defer s.Kill()
	base := s.URL("auth")
	pairs := make([]keyPair, clients)
	for i := range pairs {
		if pairs[i], err = provision(s.client, base, s.token); err != nil {
			return err
		}
	}
	conns, err := newTLSWires(s.caFile())
	if err != nil {
		return err
	}
	defer conns.close()
	addr := strings.TrimPrefix(base, "https://")
	grants := []struct {
		name string
		ask  func(w, n int, c *wire) (int, error)
		figures
	}{
		{name: "OAuth2 client credentials", ask: func(w, _ int, c *wire) (int, error) {
			status, _, err := c.do(http.MethodPost, "/oauth2/token", pairs[w].basic(), []byte("grant_type=client_credentials"))
			return status, err
		}},
		{name: "SDK-HMAC-SHA256 signature", ask: func(w, n int, c *wire) (int, error) {
			// The body makes every signature unique, even within the same second.
			body := fmt.Appendf(nil, `{"n":"%d-%s"}`, n, uuid.NewString())
			r := &http.Request{Method: http.MethodPost, Host: addr, URL: &url.URL{Path: "/mep/token"}, Header: make(http.Header)}
			signing.Sign(r, pairs[w].accessKeyID, pairs[w].secretKey, body, time.Now().UTC())
			header := jsonHeader + signing.DateHeader + ": " + r.Header.Get(signing.DateHeader) +
				"\r\nAuthorization: " + r.Header.Get("Authorization") + "\r\n"
			status, _, err := c.do(http.MethodPost, "/mep/token", header, body)
			return status, err
		}},
	}
	var bare []float64
	for range o.rounds {
		for i := range grants {
			g := &grants[i]
			g.pid = s.Pid()
			err := g.take(o, func(w, n int) error {
				c, err := conns.of(w, addr)
				if err != nil {
					return err
				}
				status, err := g.ask(w, n, c)
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("%s: status %d", g.name, status)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		rate, err := signings(o.round)
		if err != nil {
			return err
		}
		bare = append(bare, rate)
	}
	for _, g := range grants {
		compare("tokens by "+g.name+", 64 clients over TLS, yardstick: bare ES256 signatures on all cores", "/s", g.rates, bare, 0.5)
		report("  processor time of the server for a token: %.1f µs; a bare signature: %.1f µs",
			median(g.micros), float64(runtime.GOMAXPROCS(0))*1e6/median(bare))
	}
	return nil
}

// benchAuthorised compares discovery with and without a token, on a platform in development mode, which verifies tokens but
// does not require them.
func benchAuthorised(o *options) error {
	p, _, err := startLoaded(o, 10_000, 0)
	if err != nil {
		return err
	}
	defer p.Kill()
	pair, err := provision(client, p.URL("auth"), "")
	if err != nil {
		return err
	}
	source, err := auth.NewSource(auth.Config{URL: p.URL("auth"), AccessKeyID: pair.accessKeyID, SecretKey: auth.Secret(pair.secretKey)})
	if err != nil {
		return err
	}
	token, err := source.Token(context.Background())
	if err != nil {
		return err
	}
	target := p.URL("mp1") + apiRoot + "/services?ser_name=svc-7777"
	with := &side{figures{pid: p.Pid()}, target, "Authorization: Bearer " + token + "\r\n"}
	without := &side{figures{pid: p.Pid()}, target, ""}
	if err := alternate(o, 0, with, without); err != nil {
		return err
	}
	compareSides("GET /services?ser_name= with a token, yardstick: without", with, without, 0.9)
	return nil
}

// strangers is the number of unknown access keys that are tried.
const strangers = 1_000_000

// benchLockout tries unknown access keys and checks the memory of the platform.
func benchLockout(o *options) error {
	s, err := startSecured(o)
	if err != nil {
		return err
	}
	defer s.Kill()
	conns, err := newTLSWires(s.caFile())
	if err != nil {
		return err
	}
	defer conns.close()
	addr := strings.TrimPrefix(s.URL("auth"), "https://")
	before, err := s.ResidentBytes()
	if err != nil {
		return err
	}
	secret := strings.Repeat("x", signing.SecretKeyLength)
	rate, err := share(clients, strangers, func(w, n int) error {
		c, err := conns.of(w, addr)
		if err != nil {
			return err
		}
		header := keyPair{accessKeyID: fmt.Sprintf("%020d", n), secretKey: secret}.basic()
		status, _, err := c.do(http.MethodPost, "/oauth2/token", header, []byte("grant_type=client_credentials"))
		if err == nil && status != http.StatusUnauthorized {
			err = fmt.Errorf("an unknown access key: status %d", status)
		}
		return err
	})
	if err != nil {
		return err
	}
	after, err := s.ResidentBytes()
	if err != nil {
		return err
	}
	report("%d unknown access keys in %.1f s (%.0f/s): resident memory %d MB before, %d MB after", strangers, strangers/rate, rate,
		before>>20, after>>20)
	if _, err := provision(s.client, s.URL("auth"), s.token); err != nil {
		return errors.Join(errors.New("the platform does not answer any more"), err)
	}
	return nil
}
