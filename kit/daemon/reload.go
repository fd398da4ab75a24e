package daemon

import (
	"strings"

	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/kit/telemetry"
)

// reload applies what can change, all or nothing, and returns the configuration that is in force then.
func (s *Spec[C]) reload(cfg *C, src settings.Sources, log *telemetry.Log, env *Env, program *Program[C]) (effective *C, err error) {
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

// prepare does all that can fail with settings of who is let in, and who is believed where a request comes from.
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
