package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/openmep/mep/kit/rotate"
)

const (
	// maxPending is the maximum number of bytes waiting to be written.
	maxPending = 8 << 20
	// batchBytes is how many bytes are written at once without waiting for more; batchDelay is how long fewer bytes wait.
	batchBytes = 64 << 10
	batchDelay = 100 * time.Millisecond
	// keptBytes is the size up to which a buffer is kept for reuse even if little of it was needed.
	keptBytes = 1 << 20
	// sayEvery is the minimum interval between log messages about lost records.
	sayEvery = 10 * time.Second
)

// output takes whole lines. Its methods must not be called concurrently.
type output interface {
	name() string
	// write returns how many bytes of whole lines were written; fewer than given only with an error.
	write(lines []byte) (int, error)
	reopen() error
	close() error
	// stuck returns the reason why the output grows larger than it should, or nil.
	stuck() error
}

// file is an output to a file.
type file struct{ f *rotate.File }

func (o *file) name() string                    { return o.f.Path() }
func (o *file) write(lines []byte) (int, error) { return o.f.Write(lines) }
func (o *file) close() error                    { return o.f.Close() }
func (o *file) stuck() error                    { return o.f.Stuck() }
func (o *file) reopen() error                   { return errors.Join(o.f.Close(), o.f.Open()) }

// console is an output to the standard output of the process.
type console struct {
	w      io.Writer
	failed func()
	torn   bool // the last line is incomplete; the next write ends it
}

func (o *console) name() string  { return "standard output" }
func (o *console) close() error  { return nil }
func (o *console) stuck() error  { return nil }
func (o *console) reopen() error { return nil }
func (o *console) write(lines []byte) (int, error) {
	if o.torn {
		if _, err := o.w.Write([]byte("\n")); err != nil {
			o.failed()
			return 0, err
		}
		o.torn = false
	}
	n, err := o.w.Write(lines)
	if err == nil {
		return n, nil
	}
	o.failed()
	whole := bytes.LastIndexByte(lines[:n], '\n') + 1
	o.torn = n > whole
	return whole, err
}

// sink consists of an output, the lines that wait to be written to it, and the goroutine that writes them.
type sink struct {
	log     *slog.Logger
	metrics *metrics
	wake    chan struct{} // there is something to write
	full    chan struct{} // there is enough to write at once
	stop    chan struct{}
	done    chan struct{}

	mu     sync.Mutex
	buf    []byte
	lost   int // records lost since buf was last swapped
	closed bool

	// writing is locked before mu and held while the output is written.
	writing          sync.Mutex
	out              output
	spare            []byte
	failing, growing bool
	unwritten        int // lost records that no line reports yet
	unsaid           int // lost records that the log does not report yet
	said             time.Time
}

func newSink(out output, log *slog.Logger, m *metrics) *sink {
	s := &sink{
		log: log, metrics: m, out: out,
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go s.run()
	return s
}

// add queues a line, or drops it if too much waits. It returns false if the sink is closed.
func (s *sink) add(line []byte) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	before := len(s.buf)
	if before+len(line) > maxPending {
		s.lost++
		s.mu.Unlock()
		s.metrics.dropped.Inc()
		return true
	}
	s.buf = append(s.buf, line...)
	after := len(s.buf)
	s.mu.Unlock()
	if before == 0 {
		signal(s.wake)
	}
	if before < batchBytes && after >= batchBytes {
		signal(s.full)
	}
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes lines until the sink is closed.
func (s *sink) run() {
	defer close(s.done)
	late := time.NewTimer(batchDelay)
	defer late.Stop()
	for {
		select {
		case <-s.wake:
		case <-s.stop:
			s.writing.Lock()
			defer s.writing.Unlock()
			s.drain()
			if err := s.out.close(); err != nil {
				s.log.Error("access records could not be closed", "to", s.out.name(), "error", err)
			}
			return
		}
		late.Reset(batchDelay)
		select {
		case <-s.full:
		case <-late.C:
		case <-s.stop:
		}
		s.writing.Lock()
		s.drain()
		s.writing.Unlock()
	}
}

// drain writes what is waiting. The caller holds writing.
func (s *sink) drain() {
	s.mu.Lock()
	lines, lost := s.buf, s.lost
	s.buf, s.lost = s.spare, 0
	s.mu.Unlock()
	s.spare = nil
	s.write(lines, bytes.Count(lines, []byte("\n")))
	s.miss(lost)
	if n := s.unwritten; n > 0 {
		if s.write(appendLost(nil, time.Now(), n), 0) {
			s.unwritten -= n
		}
	}
	s.say()
	if cap(lines) <= keptBytes || len(lines) > cap(lines)/4 {
		s.spare = lines[:0]
	}
}

// write writes lines that hold the given number of records, and reports whether the output took them all.
func (s *sink) write(lines []byte, records int) bool {
	if len(lines) == 0 {
		return true
	}
	done, err := s.out.write(lines)
	if rest := lines[done:]; records > 0 && len(rest) > 0 {
		dropped := bytes.Count(rest, []byte("\n"))
		s.metrics.dropped.Add(float64(dropped))
		s.miss(dropped)
		records -= dropped
	}
	s.metrics.written.Add(float64(records))
	s.tell(&s.failing, err, "access records cannot be written", "access records are written again")
	s.tell(&s.growing, s.out.stuck(), "file of access records cannot be rotated", "file of access records is rotated again")
	return err == nil
}

// miss notes that records were lost.
func (s *sink) miss(n int) {
	s.unwritten += n
	s.unsaid += n
}

// say logs that records were lost, at most once every sayEvery.
func (s *sink) say() {
	if s.unsaid == 0 || time.Since(s.said) < sayEvery {
		return
	}
	s.log.Warn("access records lost", "to", s.out.name(), "count", s.unsaid)
	s.unsaid, s.said = 0, time.Now()
}

// tell logs when the output stops working and when it works again.
func (s *sink) tell(bad *bool, err error, broken, mended string) {
	switch {
	case err != nil && !*bad:
		s.log.Error(broken, "to", s.out.name(), "error", err)
	case err == nil && *bad:
		s.log.Warn(mended, "to", s.out.name())
	}
	*bad = err != nil
}

// reopen writes what is waiting and reopens the output.
func (s *sink) reopen() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	select {
	case <-s.done:
		return nil
	default:
	}
	s.drain()
	err := s.out.reopen()
	if err != nil {
		s.metrics.failures.Inc()
	}
	s.tell(&s.failing, err, "access records cannot be written", "access records are written again")
	return err
}

// close writes what is left and ends the goroutine. It must not be called twice.
func (s *sink) close(within time.Duration) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	select {
	case <-s.done:
		return nil
	case <-time.After(within):
		return fmt.Errorf("access records to %s were not written within %s", s.out.name(), within)
	}
}

func (s *sink) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.buf)
}

// appendLost appends the line that stands for n lost records.
func appendLost(b []byte, at time.Time, n int) []byte {
	b = append(b, `{"time":"`...)
	b = at.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","lost":`...)
	b = strconv.AppendInt(b, int64(n), 10)
	return append(b, "}\n"...)
}
