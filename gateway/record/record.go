// Package record writes the access records of the gateway: one line of JSON per call, to a rotated file, to standard output, or to both.
// Callers never wait for either.
package record

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/kit/rotate"
)

// Entry is one call. Empty and zero fields are omitted, except for the status, the total and the bytes. Path and Query are cut to 1024
// bytes, other strings to 256.
type Entry struct {
	// Time is when the request arrived.
	Time time.Time
	// RequestID identifies the call in the log, TraceID in traces.
	RequestID, TraceID string
	// Consumer is the subject of the caller; Via is how the caller was authenticated: token, apiKey, certificate.
	Consumer, Via string
	// Service is a serName, Instance the serInstanceId the call went to, Route the route that matched.
	Service, Instance, Route string
	// Method, Host and Proto are those of the request. Path and Query are as received, percent-encoded.
	Method, Host, Path, Query, Proto string
	// UserAgent is the User-Agent of the client.
	UserAgent string
	// Upstream is the address that was last called.
	Upstream string
	// Reason says why the gateway itself answered, or why the call broke off.
	Reason string
	// Client is the address of the client.
	Client netip.Addr
	// Status is the status of the response; Attempts is how often an upstream was tried.
	Status, Attempts int
	// Auth is how long authentication and authorisation took, Held how long limits delayed the call, FirstByte when the header of the
	// response arrived, and Total when the call was over. All but Held and Auth are measured from Time.
	Auth, Held, FirstByte, Total time.Duration
	// BytesIn and BytesOut are the sizes of the bodies of request and response.
	BytesIn, BytesOut int64
}

// The defaults of Config, and the minimum file size: a file has room for more than one line of the maximum length.
const (
	DefaultMaxBytes = 64 << 20
	DefaultKeep     = 5
	MinMaxBytes     = 64 << 10
)

// Config configures the access records.
type Config struct {
	// File is the path of the file; "" means no file. The file and its directory are created if they do not exist, unreadable to others.
	File string
	// MaxBytes is the size, at least MinMaxBytes, at which the file is renamed to file.1 and a new one begins; 0 means DefaultMaxBytes. A
	// negative size leaves rotation to others.
	MaxBytes int64
	// Keep is the maximum number of old files; 0 means DefaultKeep.
	Keep int
	// Stdout says whether records are written to standard output.
	Stdout bool
	// MaskPaths are paths with "*" for segments that must not be written and, at the end, "**" for all further segments. A path also
	// matches longer ones, as /users/*/orders matches /users/7/orders/9.
	MaskPaths []string
	// MaskQuery are names of query parameters whose values must not be written, beside DefaultMaskQuery. Case, "-" and "_" are ignored.
	MaskQuery []string
}

// Check reports what is wrong with a configuration, as far as that can be found without opening a file.
func (c Config) Check() error {
	if err := c.check(); err != nil {
		return err
	}
	_, err := compile(c.MaskPaths, c.MaskQuery)
	return err
}

// check fills in defaults and reports what is wrong.
func (c *Config) check() error {
	switch {
	case c.MaxBytes == 0:
		c.MaxBytes = DefaultMaxBytes
	case c.MaxBytes > 0 && c.MaxBytes < MinMaxBytes:
		return fmt.Errorf("a file of %d bytes is too small for access records: allow at least %d", c.MaxBytes, MinMaxBytes)
	}
	if c.Keep < 0 {
		return fmt.Errorf("%d old files of access records cannot be kept", c.Keep)
	}
	if c.Keep == 0 {
		c.Keep = DefaultKeep
	}
	return nil
}

// closeTimeout is how long Close waits for each output.
const closeTimeout = 5 * time.Second

// Log writes access records. A nil *Log discards them.
type Log struct {
	log     *slog.Logger
	metrics *metrics
	stdout  io.Writer
	lines   sync.Pool

	masks   atomic.Pointer[masks]
	file    atomic.Pointer[sink]
	console atomic.Pointer[sink]

	changing sync.Mutex // held while sinks are replaced or closed
	cfg      Config
	closed   bool
	leaving  sync.WaitGroup // sinks being closed after a change of the configuration
}

// Open opens the outputs for records. It registers the metrics with reg, unless reg is nil.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Log, error) {
	return open(cfg, log, reg, os.Stdout)
}

func open(cfg Config, log *slog.Logger, reg prometheus.Registerer, stdout io.Writer) (*Log, error) {
	l := &Log{log: log, stdout: stdout, metrics: newMetrics()}
	l.lines.New = func() any { return &line{buf: make([]byte, 0, 1024)} }
	apply, err := l.Prepare(cfg)
	if err != nil {
		return nil, err
	}
	apply()
	l.metrics.register(reg, l.pending)
	return l, nil
}

// Write encodes a record before it returns; the record is written a tenth of a second later at most. If more than 8 MiB wait to be
// written, the record is dropped and counted, and a line {"time": …, "lost": n} takes the place of all that were dropped.
func (l *Log) Write(e *Entry) {
	if l == nil || l.file.Load() == nil && l.console.Load() == nil {
		return
	}
	w := l.lines.Get().(*line)
	w.encode(l.masks.Load(), e)
	l.add(&l.file, w.buf)
	l.add(&l.console, w.buf)
	l.lines.Put(w)
}

func (l *Log) add(to *atomic.Pointer[sink], line []byte) {
	for s := to.Load(); s != nil && !s.add(line); {
		next := to.Load()
		if next == s { // Close was called
			l.metrics.dropped.Inc()
			return
		}
		s = next
	}
}

// Prepare checks a new configuration and returns a function that applies it without losing records. If a file cannot be opened, Prepare
// returns an error and the previous configuration remains in effect.
func (l *Log) Prepare(cfg Config) (apply func(), err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	masks, err := compile(cfg.MaskPaths, cfg.MaskQuery)
	if err != nil {
		return nil, err
	}
	if cfg.File != "" {
		probe := rotate.New(rotate.Config{Path: cfg.File})
		if err := probe.Open(); err != nil {
			return nil, fmt.Errorf("open the file of access records: %w", err)
		}
		if err := probe.Close(); err != nil {
			return nil, fmt.Errorf("close the file of access records: %w", err)
		}
	}
	return func() { l.apply(cfg, masks) }, nil
}

func (l *Log) apply(cfg Config, masks *masks) {
	l.changing.Lock()
	defer l.changing.Unlock()
	if l.closed {
		return
	}
	old := l.cfg
	l.cfg = cfg
	l.masks.Store(masks)
	if cfg.File != old.File || cfg.MaxBytes != old.MaxBytes || cfg.Keep != old.Keep {
		l.exchange(&l.file, cfg.File != "", func() output {
			f := rotate.New(rotate.Config{
				Path: cfg.File, MaxBytes: cfg.MaxBytes, Keep: cfg.Keep, Failed: l.metrics.failures.Inc,
			})
			_ = f.Open() // Prepare could open it a moment ago; if this fails, the first write tries again and says why
			return &file{f}
		})
	}
	if cfg.Stdout != old.Stdout {
		l.exchange(&l.console, cfg.Stdout, func() output { return &console{w: l.stdout, failed: l.metrics.failures.Inc} })
	}
}

// exchange replaces a sink with a new one, or with none. The old sink writes what it has and ends.
func (l *Log) exchange(at *atomic.Pointer[sink], wanted bool, out func() output) {
	var next *sink
	if wanted {
		next = newSink(out(), l.log, l.metrics)
	}
	if old := at.Swap(next); old != nil {
		l.leaving.Go(func() { _ = old.close(closeTimeout) })
	}
}

// Reopen reopens the path after the file was renamed. Otherwise, the renaming is noticed within a second.
func (l *Log) Reopen() error {
	if l == nil {
		return nil
	}
	if s := l.file.Load(); s != nil {
		return s.reopen()
	}
	return nil
}

// Close writes what is left, waiting at most 5 seconds for each output. Later records are dropped.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.changing.Lock()
	defer l.changing.Unlock()
	l.closed = true
	var errList []error
	for _, s := range []*sink{l.file.Load(), l.console.Load()} {
		if s != nil {
			errList = append(errList, s.close(closeTimeout))
		}
	}
	l.leaving.Wait()
	return errors.Join(errList...)
}

// pending returns how many bytes wait to be written.
func (l *Log) pending() float64 {
	n := 0
	for _, s := range []*sink{l.file.Load(), l.console.Load()} {
		if s != nil {
			n += s.pending()
		}
	}
	return float64(n)
}
