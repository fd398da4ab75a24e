package daemon

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/kit/telemetry"
)

// Reload is the result of reading the configuration again.
type Reload struct {
	// At is when it was read.
	At time.Time
	// Err is why the configuration read is not in force; nil if it is.
	Err error
}

// LastReload returns the result of the last reload; nil if there was none.
func (e *Env) LastReload() *Reload { return e.reloads.last.Load() }

// reloads records the results of reloads.
type reloads struct {
	last     atomic.Pointer[Reload]
	good, at prometheus.Gauge
}

// follow registers the metrics and the health check of reloads. The configuration in force was read just now.
func (r *reloads) follow(e *Env) {
	r.good = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mep_config_last_reload_successful", Help: "Whether the configuration that was read last is in force.",
	})
	r.at = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mep_config_last_reload_success_timestamp_seconds", Help: "When the configuration in force was read, in Unix time.",
	})
	e.Metrics.MustRegister(r.good, r.at)
	r.good.Set(1)
	r.at.SetToCurrentTime()
	e.Health.Check("configuration", func() (string, string) {
		if last := r.last.Load(); last != nil && last.Err != nil {
			return "", "was not reloaded at " + last.At.UTC().Format(time.RFC3339) + ": " + last.Err.Error()
		}
		return "", ""
	})
}

func (r *reloads) note(err error) {
	last := &Reload{At: time.Now(), Err: err}
	r.last.Store(last)
	if err != nil {
		r.good.Set(0)
		return
	}
	r.good.Set(1)
	r.at.Set(float64(last.At.UnixMilli()) / 1e3)
}

// reload applies the settings that can change, all or none of them, and returns the configuration then in force.
func (s *Spec[C]) reload(cfg *C, src settings.Sources, log *telemetry.Log, env *Env, program *Program[C]) (effective *C, err error) {
	defer func() { env.reloads.note(err) }()
	next, err := s.Load(src)
	if err != nil {
		return nil, err
	}
	var applied, restart []string
	for _, set := range settings.Changed(cfg, next) {
		if set.Reload {
			applied = append(applied, set.Path)
		} else {
			restart = append(restart, set.Path)
		}
	}
	effective = new(C)
	*effective = *cfg
	settings.Copy(effective, next)
	callers, former := s.Common(effective).Identity, env.Common.Identity
	shared, err := env.prepare(&callers)
	if err != nil {
		return nil, err
	}
	env.Common.Identity = callers
	defer func() {
		if err != nil {
			env.Common.Identity = former
		}
	}()
	apply := func() {}
	if program.Prepare != nil {
		if apply, err = program.Prepare(effective); err != nil {
			return nil, err
		}
	}
	if err := log.SetLevel(s.Common(effective).LogLevel); err != nil {
		return nil, err
	}
	shared()
	env.drain.Store(int64(s.Common(effective).Drain))
	apply()
	log.Info("configuration reloaded", "changed", strings.Join(applied, " "))
	if len(restart) > 0 {
		log.Warn("some changed settings need a restart", "settings", strings.Join(restart, " "))
	}
	return effective, nil
}

// prepare does all that can fail with new settings for callers and proxies, and returns a function that applies them.
func (e *Env) prepare(cfg *identity.Config) (apply func(), err error) {
	proxies, err := e.proxies.Prepare(cfg.Proxies)
	if err != nil {
		return nil, err
	}
	guard := func() {}
	if e.guard != nil {
		if guard, err = e.guard.Prepare(cfg); err != nil {
			return nil, err
		}
	}
	return func() { proxies(); guard() }, nil
}
