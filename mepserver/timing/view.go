package timing

import (
	"fmt"
	"time"
)

// view holds the settings and what was observed under them. It is immutable.
type view struct {
	cfg  Config
	seen observation
}

// observation is the latest state of a time source.
type observation struct {
	// answered reports whether there was a valid answer; at is when the last one came.
	answered bool
	at       instant
	// unsynchronized says why the source itself does not know the time, empty if it does.
	unsynchronized string
	// offset is what had to be added to the clock at that time.
	offset  time.Duration
	stratum int
	// failure says why the last attempt gave no valid answer, empty if it did.
	failure string
}

// staleAfter is the number of intervals for which the clock stays traceable without a good answer.
const staleAfter = 3

// source names the time source.
func (c *Config) source() string {
	if c.NTPServer == "" {
		return "kernel"
	}
	return c.NTPServer
}

// every returns the time between two queries of the source.
func (c *Config) every() time.Duration {
	if c.NTPServer == "" {
		return kernelInterval
	}
	return c.Interval
}

// fault returns why the clock is not traceable, "" if it is.
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
	// Steps of the wall clock since then, and the time a suspended machine missed, add to the offset.
	off := seen.offset - (now.wall.Round(0).Sub(seen.at.wall.Round(0)) - (now.mono - seen.at.mono))
	if off.Abs() > v.cfg.MaxOffset {
		return fmt.Sprintf("the clock is off by %s, more than %s", off, v.cfg.MaxOffset)
	}
	return ""
}
