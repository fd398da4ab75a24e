// Package audit writes the audit stream: who did what to which credential, key, app or rule, from where and with what result. The
// stream is a file of JSON lines apart from the log: it has other readers and purposes, and is kept for longer.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/kit/rotate"
)

// The results of an act.
const (
	Success = "success"
	Denied  = "denied"
	Failed  = "failed"
)

// ActionSuppressed is the action of a line that stands for suppressed denials; its members listener and count say at which
// listener, and how many.
const ActionSuppressed = "audit.suppressed"

// Entry is one act. Empty strings are omitted; of strings longer than 256 bytes only the start is written. Action and Result are
// labels of a metric, and each Listener has its own limit: their values must not come from a request.
type Entry struct {
	// Action is what was done: noun.verb, such as credential.create, key.rotate, token.issue, access.deny.
	Action string
	// Result is Success, Denied or Failed.
	Result string
	// Caller is who did it: the subject of the token or certificate, or uid:0 and the like for the command line.
	Caller string
	// Client is the id of the access key that was used.
	Client string
	// Via is how the caller authenticated: token, certificate, signature, secret, command line.
	Via string
	// Source is the address of the client.
	Source string
	// Target is what was acted on: an access key id, kid, app instance id or jti.
	Target string
	// Scope is the scope that was asked for or granted.
	Scope string
	// RequestID is the id of the request in the log.
	RequestID string
	// Detail is one sentence, and never contains a secret.
	Detail string
	// Listener is the listener that the client connected to. Denials have it, and are limited by it: see Busy.
	Listener string
}

// The defaults of Config, and the minimum file size: a file has room for the longest line several times over.
const (
	DefaultMaxBytes = 16 << 20
	DefaultKeep     = 10
	MinMaxBytes     = 64 << 10
)

// Config holds the settings of the stream.
type Config struct {
	// File is the path. The file and its directory are created if they do not exist, with no access for other users. A device, a
	// pipe or a symbolic link is written to but never rotated.
	File string
	// MaxBytes is the size, at least MinMaxBytes, at which the file becomes file.1 and a new one begins; 0 means DefaultMaxBytes.
	// Less than 0 leaves rotation to others.
	MaxBytes int64
	// Keep is the number of old files to keep; 0 means DefaultKeep. All files together have at most MaxBytes*(Keep+1) bytes, plus
	// what other processes append while one rotates. If files cannot be renamed, the current one grows and the log says so:
	// history is worth more than disk space.
	Keep int
	// Log receives the entries that cannot be written to the file, and why; nil discards them.
	Log *slog.Logger
	// Registerer registers the metrics, unless it is nil.
	Registerer prometheus.Registerer
}

const (
	batchBytes = 32 << 10
	batchDelay = 50 * time.Millisecond
)

// Log is the audit stream. A nil *Log discards everything.
type Log struct {
	log     *slog.Logger
	metrics metrics
	late    *time.Timer // flushes what Busy left in buf
	sum     *time.Timer // writes how many denials were suppressed

	mu      sync.Mutex
	buf     []byte
	denials denials
	summing bool // sum is scheduled
	closed  bool

	// writing is acquired before mu and held while the file is written, so that a slow disk does not block Busy.
	writing          sync.Mutex
	file             *rotate.File
	spare            []byte
	failing, growing bool
}

// Open opens the file for appending. Other processes may append to it too: each write consists of whole lines. If the last line
// has no newline, after a crash or on a full disk, the next write adds it.
func Open(cfg Config) (*Log, error) {
	switch {
	case cfg.File == "":
		return nil, errors.New("the audit stream has no file")
	case cfg.MaxBytes == 0:
		cfg.MaxBytes = DefaultMaxBytes
	case cfg.MaxBytes > 0 && cfg.MaxBytes < MinMaxBytes:
		return nil, fmt.Errorf("an audit file of %d bytes is too small: allow at least %d", cfg.MaxBytes, MinMaxBytes)
	}
	if cfg.Keep < 0 {
		return nil, fmt.Errorf("%d old audit files cannot be kept", cfg.Keep)
	}
	if cfg.Keep == 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{
		log:     cfg.Log,
		denials: newDenials(),
	}
	l.file = rotate.New(rotate.Config{
		Path: cfg.File, MaxBytes: cfg.MaxBytes, Keep: cfg.Keep, Failed: func() { l.metrics.failures.Inc() },
	})
	if err := l.file.Open(); err != nil {
		return nil, fmt.Errorf("open the audit stream: %w", err)
	}
	l.metrics = newMetrics(cfg.Registerer)
	l.late = time.AfterFunc(batchDelay, l.flush)
	l.sum = time.AfterFunc(suppressedDelay, l.sumUp)
	return l, nil
}

// Write writes an entry that matters by itself: it is in the file (though a crash of the machine may lose it) before Write
// returns. An entry that cannot be written goes to the log as a warning. Write is for the acts of authorised callers; use Busy for
// what strangers can cause any number of times.
func (l *Log) Write(e Entry) {
	if l == nil {
		return
	}
	l.metrics.entries.WithLabelValues(e.Action, e.Result).Inc()
	l.add(&e)
	l.flush()
}

// Busy writes an entry of a frequent kind, at most 50 ms late. Of those whose Result is Denied, it writes 10 a second and 50 at
// once for each Listener, and besides these 40 a second and 150 at once for all listeners together. Lines with ActionSuppressed
// say, at most once a second for each listener, how many were suppressed.
func (l *Log) Busy(e Entry) {
	if l == nil {
		return
	}
	l.metrics.entries.WithLabelValues(e.Action, e.Result).Inc()
	if e.Result == Denied && l.suppress(e.Listener) {
		return
	}
	if l.add(&e) >= batchBytes {
		l.flush()
	}
}

// Reopen opens the path anew after the file was renamed. Without Reopen, the rename is noticed within a second.
func (l *Log) Reopen() error {
	if l == nil {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	l.drain()
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return os.ErrClosed
	}
	_ = l.file.Close()
	err := l.file.Open()
	if err != nil {
		l.metrics.failures.Inc()
	}
	l.tell(&l.failing, err, "audit file cannot be written", "audit file is written again")
	return err
}

// Close writes what is buffered. Later entries go to the log.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.late.Stop()
	l.sum.Stop()
	l.sumUp()
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.drain()
	return l.file.Close()
}

// add appends an entry to the buffer and returns the size of the buffer.
func (l *Log) add(e *Entry) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.closed {
		l.lose(appendEntry(nil, now, e))
		return 0
	}
	if len(l.buf) == 0 {
		l.late.Reset(batchDelay)
	}
	l.buf = appendEntry(l.buf, now, e)
	return len(l.buf)
}

// suppress reports whether a denial is suppressed; a line says so within a second.
func (l *Log) suppress(listener string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.denials.allow(listener, time.Now()) {
		return false
	}
	if !l.summing {
		l.summing = true
		l.sum.Reset(suppressedDelay)
	}
	return true
}

// sumUp writes how many denials were suppressed since it last did.
func (l *Log) sumUp() {
	l.mu.Lock()
	l.summing = false
	if sums := l.denials.appendSums(nil, time.Now()); l.closed {
		l.lose(sums)
	} else {
		l.buf = append(l.buf, sums...)
	}
	l.mu.Unlock()
	l.flush()
}

func (l *Log) flush() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.drain()
}

// drain writes what is in buf. A caller that waited for writing while another drained finds its entries written. The caller holds writing.
func (l *Log) drain() {
	l.mu.Lock()
	lines := l.buf
	l.buf = l.spare
	l.mu.Unlock()
	if len(lines) > 0 {
		done, err := l.file.Write(lines)
		l.lose(lines[done:])
		l.tell(&l.failing, err, "audit file cannot be written", "audit file is written again")
		l.tell(&l.growing, l.file.Stuck(), "audit file cannot be rotated", "audit file is rotated again")
	}
	if l.spare = lines[:0]; cap(lines) > 4*batchBytes {
		l.spare = nil // a slow disk let it grow
	}
}

// lose logs lines that the file did not take.
func (l *Log) lose(lines []byte) {
	for line := range bytes.Lines(lines) {
		l.log.Warn("audit entry", "entry", json.RawMessage(bytes.Clone(bytes.TrimSuffix(line, []byte("\n")))))
	}
}

// tell logs when the file stops working and when it works again.
func (l *Log) tell(bad *bool, err error, broken, mended string) {
	switch {
	case err != nil && !*bad:
		l.log.Error(broken, "file", l.file.Path(), "error", err)
	case err == nil && *bad:
		l.log.Warn(mended, "file", l.file.Path())
	}
	*bad = err != nil
}
