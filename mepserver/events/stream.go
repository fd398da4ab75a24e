// Package events tells the MEC platform manager of changes as they happen: GET /mm5/v1/events, a stream of server-sent events
// (WHATWG HTML 9.2).
//
// Every client has a watch of its own on etcd, and the id of an event is a place in etcd's history. So a client that comes back
// with the last id it saw goes on from there, whichever process it reaches and however often that was restarted. Where the
// history is gone it is told to read the lists again.
package events

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/run"
)

// maxClients is how many clients are served at a time.
const maxClients = 32

// comeBack is when a client that was refused should try again, and reconnect the time after which one does that lost its stream.
const (
	comeBack  = 10 * time.Second
	reconnect = 2 * time.Second
)

// pace is how long things may take.
type pace struct {
	// keepAlive is how long a stream is silent before a comment is sent, and etcd asked how far it is.
	keepAlive time.Duration
	// write is how long a client may take to accept what is written to it; then it is dropped.
	write time.Duration
	// behind is how long what came from etcd may wait for the client before it is left with etcd.
	behind time.Duration
	// retry and maxRetry bound the growing time between two attempts to reach etcd.
	retry, maxRetry time.Duration
}

// Stream serves the events.
type Stream struct {
	store   *etcd.Store
	log     *slog.Logger
	metrics *metrics
	skipped skipped
	pace    pace
	begin   func() int64
	catchUp func(context.Context, int64) error
	slots   chan int

	closing chan struct{}
	once    sync.Once
}

// New makes a stream of the changes in store.
func New(store *etcd.Store, log *slog.Logger, reg prometheus.Registerer) *Stream {
	s := &Stream{
		store: store, log: log, metrics: newMetrics(reg), skipped: skipped{log: log}, closing: make(chan struct{}),
		pace: pace{
			keepAlive: 15 * time.Second, write: 10 * time.Second, behind: 500 * time.Millisecond,
			retry: 100 * time.Millisecond, maxRetry: 5 * time.Second,
		},
		slots: make(chan int, maxClients),
	}
	for n := range maxClients {
		s.slots <- n
	}
	return s
}

// Follow makes streams that resume nothing begin where the copy is that lists are answered from: then no change falls between a list
// and the stream, and a stream can begin while etcd is away. Without it they begin at etcd's present revision. And no event is sent
// before the copy shows it, or a client that asks because of it would hear of what was before. Call it before the stream is used.
func (s *Stream) Follow(revision func() int64, catchUp func(context.Context, int64) error) {
	s.begin, s.catchUp = revision, catchUp
}

// Run serves until ctx ends, then ends all streams. It is to run beside the listener and end with it, whose drain would wait
// for the streams otherwise.
func (s *Stream) Run(ctx context.Context) error {
	<-ctx.Done()
	s.Close()
	return nil
}

// Close ends all streams and refuses new ones. It does not wait for them: that is what the listener does.
func (s *Stream) Close() { s.once.Do(func() { close(s.closing) }) }

// Handler answers GET and HEAD. Errors are of the kinds errs.Invalid, and errs.Unavailable when there are too many clients or
// etcd does not say where the stream begins.
func (s *Stream) Handler() httpx.Handler {
	return func(c *gin.Context) error {
		req, err := parseRequest(c.Request)
		if err != nil {
			return err
		}
		if c.Request.Method == http.MethodHead {
			sendHeader(c)
			return nil
		}
		select {
		case <-s.closing:
			return errs.New(errs.Unavailable, "the platform is stopping").After(reconnect)
		default:
		}
		var slot int
		select {
		case slot = <-s.slots:
			defer func() { s.slots <- slot }()
		default:
			return errs.New(errs.Unavailable, "%d clients follow the events already, which is as many as are served", maxClients).After(comeBack)
		}
		f := &follower{
			store: s.store, pace: s.pace, skipped: &s.skipped, begin: s.beginning, watch: strconv.Itoa(slot), want: req.want,
			caller: newCaller(identity.Of(c)), at: req.after, out: make(chan batch),
		}
		if s.begin != nil {
			f.caller.verified = s.begin()
		}
		if f.at == (position{}) {
			revision, err := s.beginning(c.Request.Context())
			if err != nil {
				return err
			}
			f.at, f.caller.verified = position{revision, whole}, revision
		}
		f.told = f.at.revision
		s.metrics.clients.Inc()
		defer s.metrics.clients.Dec()
		s.serve(c, f)
		return nil
	}
}

// beginning is where a stream begins that resumes nothing.
func (s *Stream) beginning(ctx context.Context) (int64, error) {
	if s.begin != nil {
		return max(1, s.begin()), nil
	}
	return s.store.Revision(ctx, state.Root)
}

func sendHeader(c *gin.Context) {
	h := c.Writer.Header()
	h["Content-Type"] = []string{"text/event-stream"}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Accel-Buffering"] = []string{"no"} // or nginx would collect the events
	c.Writer.WriteHeader(http.StatusOK)
	c.Writer.WriteHeaderNow()
}

// serve sends what the follower finds until the client, the caller's proof or the platform ends.
func (s *Stream) serve(c *gin.Context, f *follower) {
	ctx := c.Request.Context()
	conn := newConnection(c.Writer, s.pace.write)
	sendHeader(c)
	hello := append([]byte(": mep\nretry: "), strconv.FormatInt(reconnect.Milliseconds(), 10)...)
	hello = append(append(append(hello, "\nid: "...), f.at.String()...), "\n\n"...)
	if err := conn.write(hello); err != nil {
		s.gone(c, err)
		return
	}
	defer conn.endWith(s.closing)()
	group := run.NewGroup(ctx)
	group.Go("events", f.run)
	defer func() { _ = group.Stop(context.Background()) }() // it ends with its context
	expired, stop := f.caller.expiry()
	defer stop()
	idle := time.NewTimer(s.pace.keepAlive)
	defer idle.Stop()
	for {
		var next batch
		select {
		case <-ctx.Done():
			return
		case <-s.closing:
			return
		case <-expired:
			return
		case <-group.Failed():
			level := slog.LevelError
			if errors.Is(group.Err(), errRevoked) {
				level = slog.LevelInfo
			}
			s.log.Log(ctx, level, "event stream ended", "request_id", httpx.RequestID(c), "caller", identity.Subject(c), "reason", group.Err())
			return
		case next = <-f.out:
			if s.catchUp != nil {
				_ = s.catchUp(ctx, next.revision) // sent all the same when the copy lags for long
			}
		case <-idle.C:
			next.frames = []byte(":\n\n")
		}
		if err := conn.write(next.frames); err != nil {
			s.gone(c, err)
			return
		}
		s.metrics.count(&next)
		idle.Reset(s.pace.keepAlive)
	}
}

// gone is called when a client took no more.
func (s *Stream) gone(c *gin.Context, err error) {
	if !tooSlow(err) {
		return // it went, or the platform stops
	}
	s.metrics.dropped.Inc()
	s.log.Warn("a client takes the events too slowly and is dropped", "request_id", httpx.RequestID(c),
		"caller", identity.Subject(c), "remote", c.Request.RemoteAddr, "error", err)
}
