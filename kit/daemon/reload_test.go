package daemon

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/kit/telemetry"
	"github.com/openmep/mep/kit/watched"
)

type testConfig struct {
	Common Config
	Other  int `name:"other" reload:"true" default:"0" usage:"a setting of the program"`
}

// reloading is a program that can be reloaded, and a router of it that says who the client is.
type reloading struct {
	tb      testing.TB
	spec    *Spec[testConfig]
	log     *telemetry.Log
	env     *Env
	guard   *identity.Guard
	program *Program[testConfig]
	file    string
	cfg     *testConfig
	router  Router
}

func newReloading(t *testing.T) *reloading {
	t.Helper()
	dir := t.TempDir()
	r := &reloading{tb: t, file: filepath.Join(dir, "config.yaml"), spec: &Spec[testConfig]{
		Name: "test", Common: func(c *testConfig) *Config { return &c.Common }, Validate: func(*testConfig) error { return nil },
	}, program: &Program[testConfig]{}}
	r.write("dev: true\ndataDir: " + dir + "\n")
	var err error
	r.cfg, err = r.spec.Load(settings.Sources{File: r.file})
	require.NoError(t, err)
	r.log, err = telemetry.NewLog(io.Discard, "text", "info")
	require.NoError(t, err)
	t.Cleanup(r.log.Close)
	r.env, err = NewEnv(t.Context(), &r.cfg.Common, "test", nil, r.log.Logger, telemetry.NewRegistry("test"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.env.Audit.Close()) })
	mirror := watched.New(watched.Config{Source: etcdtest.Start(t).Store(t).Source, Prefix: state.Root, Logger: r.log.Logger})
	r.guard, err = identity.NewGuard(&r.env.Common.Identity, identity.NewDirectory(mirror), true, r.env.Audit, r.log.Logger, r.env.Metrics)
	require.NoError(t, err)
	r.env.SetGuard(r.guard)
	work := NewWorkers("state")
	work.Add("mirror", mirror.Run)
	work.Start(t.Context())
	t.Cleanup(func() { require.NoError(t, work.Stop(context.Background())) })
	<-mirror.Ready()
	limits := httpx.Limits{}.WithDefaults()
	r.router, err = r.env.Router("test", func() httpx.Limits { return limits })
	require.NoError(t, err)
	r.router.GET("/", func(c *gin.Context) { c.String(http.StatusOK, httpx.ClientAddr(c).String()) })
	return r
}

func (r *reloading) write(text string) {
	r.tb.Helper()
	require.NoError(r.tb, os.WriteFile(r.file, []byte(text), 0o600))
}

// reload adds settings to those of the start.
func (r *reloading) reload(more string) error {
	r.tb.Helper()
	r.write("dev: true\ndataDir: " + r.cfg.Common.DataDir + "\n" + more)
	next, err := r.spec.reload(r.cfg, settings.Sources{File: r.file}, r.log, r.env, r.program)
	if err == nil {
		r.cfg = next
	}
	return err
}

// metric returns the value of a gauge.
func (r *reloading) metric(name string) float64 {
	r.tb.Helper()
	families, err := r.env.Metrics.Gather()
	require.NoError(r.tb, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	require.Fail(r.tb, "there is no such metric", name)
	return 0
}

// client returns what the router takes for the client of a request from 10.0.0.1.
func (r *reloading) client() string {
	r.tb.Helper()
	req := httptest.NewRequestWithContext(r.tb.Context(), http.MethodGet, "/", nil)
	req.RemoteAddr = "10.0.0.1:1"
	req.Header.Set("X-Forwarded-For", "198.51.100.1")
	rec := httptest.NewRecorder()
	r.router.ServeHTTP(rec, req)
	return rec.Body.String()
}

// known reports whether tokens of an issuer are verified with that issuer's keys.
func (r *reloading) known() bool {
	r.tb.Helper()
	// {"alg":"ES256","kid":"x"} . {"iss":"https://idp.test"}
	_, err := r.guard.Verifier().Verify(r.tb.Context(), "eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJodHRwczovL2lkcC50ZXN0In0.AA")
	require.Error(r.tb, err)
	return err.Error() == "no key of https://idp.test has the kid of the token"
}

func TestReloadChangesWhoIsLetInAndBelieved(t *testing.T) {
	r := newReloading(t)
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, []byte(`{"keys":[]}`), 0o600))
	issuers := "auth.issuers: [{issuer: \"https://idp.test\", jwksFile: " + keys + "}]\n"
	require.Equal(t, "10.0.0.1", r.client())
	require.False(t, r.known())

	require.NoError(t, r.reload(issuers+"proxies: [10.0.0.0/8]\n"), "a program that prepares nothing")
	require.Equal(t, "198.51.100.1", r.client())
	require.True(t, r.known())

	var seen [][]string
	r.program.Prepare = func(*testConfig) (func(), error) {
		proxies := r.env.Common.Identity.Proxies
		return func() { seen = append(seen, proxies) }, nil
	}
	require.NoError(t, r.reload("proxies: [192.0.2.0/24]\nother: 1\n"))
	require.Equal(t, [][]string{{"192.0.2.0/24"}}, seen, "the parts see what is new")
	require.Equal(t, "10.0.0.1", r.client())
	require.False(t, r.known())
	require.Equal(t, 1, r.cfg.Other)
}

func TestReloadIsAllOrNothing(t *testing.T) {
	r := newReloading(t)
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, []byte(`{"keys":[]}`), 0o600))
	issuers := "auth.issuers: [{issuer: \"https://idp.test\", jwksFile: " + keys + "}]\n"
	good := issuers + "proxies: [10.0.0.0/8]\n"
	require.Nil(t, r.env.LastReload())
	require.InDelta(t, 1, r.metric("mep_config_last_reload_successful"), 0)
	require.NoError(t, r.reload(good))
	require.NoError(t, r.env.LastReload().Err)
	inForce := r.metric("mep_config_last_reload_success_timestamp_seconds")
	prepared := func(err error) func(*testConfig) (func(), error) {
		return func(*testConfig) (func(), error) { return func() { t.Error("applied") }, err }
	}
	for name, c := range map[string]struct {
		more    string
		prepare func(*testConfig) (func(), error)
		want    string
	}{
		"an issuer without keys":       {"auth.issuers: [{issuer: x, jwksFile: /nonexistent/keys}]\n", prepared(nil), "auth.issuers[0]: keys of the issuer x: open /nonexistent/keys"},
		"no network":                   {"proxies: [here]\n", prepared(nil), `proxies: "here" is not a network`},
		"a part that is not satisfied": {"proxies: [192.0.2.0/24]\n", prepared(errors.New("not like that")), "not like that"},
	} {
		t.Run(name, func(t *testing.T) {
			r.program.Prepare = c.prepare
			require.ErrorContains(t, r.reload(c.more+"other: 1\n"), c.want)
			require.Equal(t, "198.51.100.1", r.client())
			require.True(t, r.known())
			require.Equal(t, []string{"10.0.0.0/8"}, r.env.Common.Identity.Proxies)
			require.Zero(t, r.cfg.Other)
			require.ErrorContains(t, r.env.LastReload().Err, c.want)
			require.Zero(t, r.metric("mep_config_last_reload_successful"))
			require.InDelta(t, inForce, r.metric("mep_config_last_reload_success_timestamp_seconds"), 0)
		})
	}
	r.program.Prepare = nil
	require.NoError(t, r.reload(good))
	require.NoError(t, r.env.LastReload().Err)
	require.InDelta(t, 1, r.metric("mep_config_last_reload_successful"), 0)
}

func TestTheAudienceNeedsARestart(t *testing.T) {
	r := newReloading(t)
	require.NoError(t, r.reload("auth.audience: other\n"))
	require.Equal(t, "mep", r.cfg.Common.Identity.Audience)
	require.Equal(t, "mep", r.env.Common.Identity.Audience)
}

func TestTheTimeForTheEndFollowsAReload(t *testing.T) {
	r := newReloading(t)
	require.Equal(t, 3*time.Second, r.env.Drain())
	require.NoError(t, r.reload("drain: 1500ms\n"))
	require.Equal(t, 1500*time.Millisecond, r.env.Drain())
	require.Error(t, r.reload("drain: 1h\n"))
	require.Equal(t, 1500*time.Millisecond, r.env.Drain(), "what is wrong changes nothing")
}
