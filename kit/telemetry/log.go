// Package telemetry provides the logger, the metrics registry and the tracer of a daemon.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Log is a logger whose level can be changed and whose lines are written in batches.
type Log struct {
	*slog.Logger
	level slog.LevelVar
	out   *batchWriter
}

// NewLog returns a logger that writes lines of the level ("debug", "info", "warn" or "error") and above to w, in the
// format "json" or "text". Lines below a warning reach w at most 50 ms late; Close writes the rest.
func NewLog(w io.Writer, format, level string) (*Log, error) {
	l := &Log{out: newBatchWriter(w)}
	if err := l.SetLevel(level); err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: &l.level}
	var h slog.Handler
	switch format {
	case "json":
		h = slog.NewJSONHandler(l.out, opts)
	case "text":
		h = slog.NewTextHandler(l.out, opts)
	default:
		return nil, fmt.Errorf("log format %q is not one of json, text", format)
	}
	l.Logger = slog.New(urgent{h, l.out})
	return l, nil
}

// CheckLog returns why a format or level is invalid, or nil.
func CheckLog(format, level string) error {
	l, err := NewLog(io.Discard, format, level)
	if err == nil {
		l.Close()
	}
	return err
}

// SetLevel changes the lowest level that is written.
func (l *Log) SetLevel(level string) error {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("log level %q is not one of debug, info, warn, error", level)
	}
	l.level.Set(lv)
	return nil
}

// Close writes what is buffered. Lines logged later are written at once.
func (l *Log) Close() { l.out.close() }

// urgent writes a warning or an error at once.
type urgent struct {
	slog.Handler
	out *batchWriter
}

// Handle implements slog.Handler.
func (u urgent) Handle(ctx context.Context, r slog.Record) error {
	err := u.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		u.out.flush()
	}
	return err
}

// WithAttrs implements slog.Handler.
func (u urgent) WithAttrs(attrs []slog.Attr) slog.Handler {
	return urgent{u.Handler.WithAttrs(attrs), u.out}
}

// WithGroup implements slog.Handler.
func (u urgent) WithGroup(name string) slog.Handler { return urgent{u.Handler.WithGroup(name), u.out} }

// batchWriter batches small writes: one system call for each line of a busy server's request log would cost more than formatting the line.
type batchWriter struct {
	mu     sync.Mutex
	w      io.Writer
	buf    []byte
	timer  *time.Timer
	closed bool
}

const (
	batchBytes = 32 << 10
	batchDelay = 50 * time.Millisecond
)

func newBatchWriter(w io.Writer) *batchWriter {
	b := &batchWriter{w: w}
	b.timer = time.AfterFunc(batchDelay, b.flush)
	return b
}

// Write implements io.Writer. It never fails: a log that cannot be written must not stop the platform.
func (b *batchWriter) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.buf) == 0 && !b.closed {
		b.timer.Reset(batchDelay)
	}
	b.buf = append(b.buf, p...)
	if b.closed || len(b.buf) >= batchBytes {
		b.write()
	}
	return len(p), nil
}

func (b *batchWriter) write() {
	if len(b.buf) > 0 {
		_, _ = b.w.Write(b.buf)
		b.buf = b.buf[:0]
	}
}

func (b *batchWriter) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write()
}

func (b *batchWriter) close() {
	b.timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.write()
}
