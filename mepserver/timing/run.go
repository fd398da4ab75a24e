package timing

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/beevik/ntp"
)

// firstRetry is the delay before a server that did not respond is queried again; it doubles up to the interval.
const firstRetry = 2 * time.Second

// maxKisses bounds how often the interval is doubled for a server that asks for fewer queries.
const maxKisses = 6

// Run observes the time source until ctx ends, and then returns nil. It never gives up earlier.
func (c *Clock) Run(ctx context.Context) error {
	var failures int
	var said *bool
	for {
		cfg := c.view.Load().cfg
		err := c.look(ctx, &cfg)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			failures = 0
		} else {
			failures++
		}
		said = c.say(said)
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
			failures = 0
		case <-time.After(pause(&cfg, err, failures)):
		}
	}
}

// look queries the source once and records the result. It returns an error if the source gave no valid answer.
func (c *Clock) look(ctx context.Context, cfg *Config) error {
	answer, err := c.ask(ctx, cfg)
	if ctx.Err() != nil {
		return nil
	}
	c.swapping.Lock()
	defer c.swapping.Unlock()
	v := *c.view.Load()
	if v.cfg.NTPServer != cfg.NTPServer {
		return err // the server has been replaced in the meantime
	}
	if err != nil {
		v.seen.failure = err.Error()
	} else {
		v.seen = answer
	}
	c.view.Store(&v)
	return err
}

func (c *Clock) ask(ctx context.Context, cfg *Config) (observation, error) {
	if cfg.NTPServer != "" {
		return c.askServer(ctx, cfg.NTPServer)
	}
	d, err := c.kernel()
	if err != nil {
		return observation{}, err
	}
	return observation{answered: true, at: c.now(), unsynchronized: d.fault(), offset: d.offset}, nil
}

// pause returns the time until the source is queried again.
func pause(cfg *Config, err error, failures int) time.Duration {
	switch {
	case err == nil, cfg.NTPServer == "":
		return cfg.every()
	case errors.Is(err, ntp.ErrKissOfDeath):
		// RFC 5905 7.4: query less often, and even less often when told again.
		return cfg.Interval << min(failures, maxKisses)
	}
	wait := firstRetry
	for range failures - 1 {
		if wait *= 2; wait >= cfg.Interval {
			break
		}
	}
	return min(wait, cfg.Interval)
}

// say logs a change of traceability. said is the state last logged, nil at first; say returns its new value.
func (c *Clock) say(said *bool) *bool {
	s := c.Status()
	if said != nil && *said == s.Traceable {
		return said
	}
	switch {
	case s.Traceable:
		c.log.Info("the clock is traceable to UTC", "source", s.Source, "offset", s.Offset, "stratum", s.Stratum)
	default:
		level := slog.LevelInfo // often the case at the start
		if said != nil {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "the clock is not traceable to UTC", "source", s.Source, "reason", s.Reason)
	}
	return &s.Traceable
}
