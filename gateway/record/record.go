// Package record writes the access records of the gateway: one line of JSON for each call, to a file that is rotated, to the standard
// output, or both. Callers never wait for either.
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

// Entry is one call. What is empty or 0 is left out, but for the status, the total and the bytes. Of strings longer than 256 bytes, of
// Path and Query longer than 1024, the start is written.
type Entry struct {
	// Time is when the request came.
	Time time.Time
	// RequestID finds the call in the log, TraceID in the traces.
	RequestID, TraceID string
	// Consumer is the subject of the caller, Via how it proved that: token, apiKey, certificate.
	Consumer, Via string
	// Service is a serName, Instance the serInstanceId the call went to, Route the route that took it.
	Service, Instance, Route string
	// Method, Host and Proto are those of the request. Path and Query are as they came, percent-encoded.
	Method, Host, Path, Query, Proto string
	// UserAgent is what the client says it is.
	UserAgent string
	// Upstream is the address that was called last.
	Upstream string
	// Reason says why the gateway answered by itself, or why the call broke off.
	Reason string
	// Client is the address of the client.
	Client netip.Addr
	// Status is that of the answer, Attempts how often an upstream was tried.
	Status, Attempts int
	// Auth is how long it took to know the caller and to let it pass, Held how long limits held the call back, FirstByte when the
	// header of the answer came, Total when the call was over. All but Held and Auth count from Time.
	Auth, Held, FirstByte, Total time.Duration
	// BytesIn and BytesOut are the bytes of the bodies of request and answer.
	BytesIn, BytesOut int64
}

// The defaults of Config, and the least file size: a file has room for the longest line more than once.
const (
	DefaultMaxBytes = 64 << 20
	DefaultKeep     = 5
	MinMaxBytes     = 64 << 10
)

// Config is the settings of the records.
type Config struct {
	// File is the path, "" for no file. It and its directory are made when they do not exist, for nobody else to read.
	File string
	// MaxBytes is the size, at least MinMaxBytes, at which the file becomes file.1 and a new one begins; 0 counts as
	// DefaultMaxBytes. Less than 0 leaves rotation to others.
	MaxBytes int64
	// Keep is how many old files there may be; 0 counts as DefaultKeep.
	Keep int
	// Stdout writes records to the standard output.
	Stdout bool
	// MaskPaths are paths with "*" for segments that are not to be written, and at the end "**" for all that follow. What comes after
	// a path, such as in /users/*/orders and /users/7/orders/9, does not matter.
	MaskPaths []string
	// MaskQuery are names of query members whose values are not to be written, beside DefaultMaskQuery. Upper and lower case, "-" and
	// "_" make no difference.
	MaskQuery []string
}

// Check reports what is wrong with a configuration, as far as no file has to be opened for that.
func (c Config) Check() error {
	if err := c.check(); err != nil {
		return err
	}
	_, err := compile(c.MaskPaths, c.MaskQuery)
	return err
}

// check fills in defaults and says what is wrong.
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

// closeTimeout is how long Close waits for what takes the records.
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

	changing sync.Mutex // held while sinks are exchanged or closed
	cfg      Config
	closed   bool
	leaving  sync.WaitGroup // sinks that a change of the configuration closes
}

// Open opens what records are written to. reg takes the metrics, unless it is nil.
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

// Write takes a record. It is encoded before Write returns, and written a tenth of a second later at most. When more than 8 MiB
// wait to be written it is dropped and counted, and a line {"time": …, "lost": n} stands in the place of all that were.
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

// Prepare checks other settings and returns what puts them to use. No record is lost by that. Where a file cannot be opened the
// settings are refused and those of before stay.
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
			_ = f.Open() // it was possible a moment ago; if not any more, the first write tries again and says why
			return &file{f}
		})
	}
	if cfg.Stdout != old.Stdout {
		l.exchange(&l.console, cfg.Stdout, func() output { return &console{w: l.stdout, failed: l.metrics.failures.Inc} })
	}
}

// exchange puts a new sink, or none, in the place of an old one, which writes what it has and ends.
func (l *Log) exchange(at *atomic.Pointer[sink], wanted bool, out func() output) {
	var next *sink
	if wanted {
		next = newSink(out(), l.log, l.metrics)
	}
	if old := at.Swap(next); old != nil {
		l.leaving.Go(func() { _ = old.close(closeTimeout) })
	}
}

// Reopen opens the path anew, after the file was renamed. Without it that is noticed within a second.
func (l *Log) Reopen() error {
	if l == nil {
		return nil
	}
	if s := l.file.Load(); s != nil {
		return s.reopen()
	}
	return nil
}

// Close writes what is left, and gives up after 5 seconds. Records that come later are dropped.
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

// pending is how many bytes wait to be written.
func (l *Log) pending() float64 {
	n := 0
	for _, s := range []*sink{l.file.Load(), l.console.Load()} {
		if s != nil {
			n += s.pending()
		}
	}
	return float64(n)
}
