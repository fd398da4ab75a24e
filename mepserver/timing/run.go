package timing

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/beevik/ntp"
)

// firstRetry is the time until a server that did not answer is asked again; it doubles up to the interval.
const firstRetry = 2 * time.Second

// maxKisses bounds the time by which a server that asks for fewer questions is spared: the interval, doubled so many times.
const maxKisses = 6

// Run finds out how the clock stands until ctx ends. It returns nil then, and never gives up before.
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

// look asks the source once. The error is that of a source that gave no answer that counts.
func (c *Clock) look(ctx context.Context, cfg *Config) error {
	answer, err := c.ask(ctx, cfg)
	if ctx.Err() != nil {
		return nil
	}
	c.swapping.Lock()
	defer c.swapping.Unlock()
	v := *c.view.Load()
	if v.cfg.NTPServer != cfg.NTPServer {
		return err // somebody else is asked by now
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

// pause is the time until the source is looked at again.
func pause(cfg *Config, err error, failures int) time.Duration {
	switch {
	case err == nil, cfg.NTPServer == "":
		return cfg.every()
	case errors.Is(err, ntp.ErrKissOfDeath):
		// RFC 5905 7.4: ask less often, and still less when that is said again.
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

// say writes to the log what has changed since it said something last.
func (c *Clock) say(said *bool) *bool {
	s := c.Status()
	if said != nil && *said == s.Traceable {
		return said
	}
	switch {
	case s.Traceable:
		c.log.Info("the clock is traceable to UTC", "source", s.Source, "offset", s.Offset, "stratum", s.Stratum)
	default:
		level := slog.LevelInfo // how it starts, often
		if said != nil {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "the clock is not traceable to UTC", "source", s.Source, "reason", s.Reason)
	}
	return &s.Traceable
}
