package timing

import (
	"fmt"
	"time"
)

// view is the settings and what was found out under them. It never changes.
type view struct {
	cfg  Config
	seen observation
}

// observation is what a time source last said.
type observation struct {
	// answered says that there was an answer that counts; at is when the last one came.
	answered bool
	at       instant
	// unsynchronized says why the source itself does not know the time, empty when it does.
	unsynchronized string
	// offset is what had to be added to the clock then.
	offset  time.Duration
	stratum int
	// failure says why the last attempt gave no answer that counts, empty when it did.
	failure string
}

// staleAfter is how many intervals the clock stays traceable without a good answer.
const staleAfter = 3

// source names what the clock is judged by.
func (c *Config) source() string {
	if c.NTPServer == "" {
		return "kernel"
	}
	return c.NTPServer
}

// every is the time between two looks at the source.
func (c *Config) every() time.Duration {
	if c.NTPServer == "" {
		return kernelInterval
	}
	return c.Interval
}

// fault says why the clock is not traceable, "" when it is.
func (v *view) fault(now instant) string {
	seen := &v.seen
	switch age := now.mono - seen.at.mono; {
	case !seen.answered && seen.failure != "":
		return "there has been no answer yet: " + seen.failure
	case !seen.answered:
		return "there has been no answer yet"
	case age > staleAfter*v.cfg.every():
		return fmt.Sprintf("the last answer is older than %s", staleAfter*v.cfg.every())
	case seen.unsynchronized != "":
		return seen.unsynchronized
	case v.cfg.NTPServer == "":
		return "" // the kernel notices by itself when its clock is set
	}
	// What somebody has set the clock by since, and the time a suspended machine missed, is off now.
	off := seen.offset - (now.wall.Round(0).Sub(seen.at.wall.Round(0)) - (now.mono - seen.at.mono))
	if off.Abs() > v.cfg.MaxOffset {
		return fmt.Sprintf("the clock is off by %s, more than %s", off, v.cfg.MaxOffset)
	}
	return ""
}
