// Package timing tells apps the platform's time, and whether it follows UTC (MEC 011 7.2.5, 7.2.6).
//
// Requests are answered from the latest background observation, which reads the kernel's clock discipline or queries an NTP server.
package timing

import (
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/mp1"
)

// Config says how the platform's clock is judged, and which time services apps are offered.
type Config struct {
	// NTPServer is the host or host:port of the server queried in the background. If it is empty, the kernel's clock
	// discipline decides.
	NTPServer string
	// Interval is the time between two queries to NTPServer; default 64 s. After three intervals without a good answer
	// the clock is not traceable.
	Interval time.Duration
	// MaxOffset is how far the clock may be from NTPServer and still count as traceable; default 1 s.
	MaxOffset time.Duration
	// Caps lists the time services offered to apps. Its TimeStamp is ignored.
	Caps mp1.TimingCaps
}

// Defaults of Config.
const (
	defaultInterval  = 64 * time.Second
	defaultMaxOffset = time.Second
)

func (c Config) withDefaults() Config {
	if c.Interval <= 0 {
		c.Interval = defaultInterval
	}
	if c.MaxOffset <= 0 {
		c.MaxOffset = defaultMaxOffset
	}
	return c
}

// Clock is the platform's clock. Its methods may be called concurrently.
type Clock struct {
	log     *slog.Logger
	changed chan struct{} // signals new settings

	swapping sync.Mutex // held while view is replaced
	view     atomic.Pointer[view]

	// Replaced by tests.
	now      func() instant
	kernel   func() (discipline, error)
	patience time.Duration // how long NTPServer has to respond
}

// instant is a moment on two clocks: the one that is judged, and one that nobody sets.
type instant struct {
	wall time.Time
	mono time.Duration
}

// monotonic returns a function that reads both clocks.
func monotonic() func() instant {
	start := time.Now()
	return func() instant {
		now := time.Now()
		return instant{wall: now, mono: now.Sub(start)}
	}
}

// New returns a clock that is not traceable until Run has observed its source.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Clock {
	c := &Clock{log: log, changed: make(chan struct{}, 1), now: monotonic(), kernel: readKernel, patience: answerTimeout}
	c.view.Store(&view{cfg: cfg.withDefaults()})
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_timing_traceable", Help: "1 while the platform's clock is known to follow UTC, else 0.",
		}, func() float64 {
			if c.Status().Traceable {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_timing_offset_seconds", Help: "What has to be added to the platform's clock by the last answer of its time source; NaN before the first.",
		}, func() float64 {
			v := c.view.Load()
			if !v.seen.answered {
				return math.NaN()
			}
			return v.seen.offset.Seconds()
		}),
	)
	return c
}

// Set applies new settings, as a reload does. It drops what was observed of another server.
func (c *Clock) Set(cfg Config) {
	c.swapping.Lock()
	next := &view{cfg: cfg.withDefaults()}
	if was := c.view.Load(); was.cfg.NTPServer == next.cfg.NTPServer {
		next.seen = was.seen
	}
	c.view.Store(next)
	c.swapping.Unlock()
	select {
	case c.changed <- struct{}{}:
	default: // Run is about to look anyway
	}
}

// Now returns the time, with nanoseconds (MEC 011 7.2.6). It does not block.
func (c *Clock) Now() mp1.CurrentTime {
	now := c.now()
	t := timeStamp(now.wall)
	status := mp1.TimeNontraceable
	if c.view.Load().fault(now) == "" {
		status = mp1.TimeTraceable
	}
	return mp1.CurrentTime{Seconds: t.Seconds, NanoSeconds: t.NanoSeconds, TimeSourceStatus: status}
}

// Caps returns the time services offered to apps, with the current time (MEC 011 7.2.5).
func (c *Clock) Caps() mp1.TimingCaps {
	offered := c.view.Load().cfg.Caps
	now := timeStamp(c.now().wall)
	return mp1.TimingCaps{
		TimeStamp: &now, NTPServers: slices.Clone(offered.NTPServers), PTPMasters: slices.Clone(offered.PTPMasters),
	}
}

// timeStamp returns the time in the form of the standard: unsigned seconds, which last from 1970 until 2106. A time
// outside that range becomes its nearest end.
func timeStamp(t time.Time) mp1.TimeStamp {
	switch seconds := t.Unix(); {
	case seconds < 0:
		return mp1.TimeStamp{}
	case seconds > math.MaxUint32:
		return mp1.TimeStamp{Seconds: math.MaxUint32, NanoSeconds: 999_999_999}
	default:
		return mp1.TimeStamp{Seconds: uint32(seconds), NanoSeconds: uint32(t.Nanosecond())} //nolint:gosec // both are in range
	}
}

// Status is the state of the clock as shown to operators.
type Status struct {
	// Source is "kernel", or the NTP server that is queried.
	Source string `json:"source"`
	// Traceable reports whether the clock is known to follow UTC; Reason says why it is not.
	Traceable bool   `json:"traceable"`
	Reason    string `json:"reason,omitempty"`
	// Offset is what has to be added to the clock according to the last answer, in nanoseconds.
	Offset time.Duration `json:"offset"`
	// Stratum is the stratum of the server that answered last, 1 to 15; 0 for the kernel.
	Stratum int `json:"stratum,omitempty"`
	// LastAnswer is when the source last gave a valid answer, zero if it never did.
	LastAnswer time.Time `json:"lastAnswer,omitzero"`
	// LastError says why the last attempt failed, empty if it did not.
	LastError string `json:"lastError,omitempty"`
}

// Status returns the state of the clock.
func (c *Clock) Status() Status {
	v := c.view.Load()
	s := Status{
		Source: v.cfg.source(), Reason: v.fault(c.now()), Offset: v.seen.offset, Stratum: v.seen.stratum, LastError: v.seen.failure,
	}
	s.Traceable = s.Reason == ""
	if v.seen.answered {
		s.LastAnswer = v.seen.at.wall.UTC()
	}
	return s
}
