// Package events streams changes to the MEC platform manager as they happen: GET /mm5/v1/events returns server-sent events
// (WHATWG HTML 9.2).
//
// Every client has its own watch on etcd, and the id of an event is a position in etcd's history. So a client that reconnects
// with the last id it saw resumes from there, whichever process it reaches and however often that process was restarted. If the
// history is gone, the client is told to read the lists again.
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

// maxClients is how many clients are served concurrently.
const maxClients = 32

// comeBack is the delay before a refused client should try again, reconnect the delay before a client that lost its stream
// reconnects.
const (
	comeBack  = 10 * time.Second
	reconnect = 2 * time.Second
)

// pace holds the time limits.
type pace struct {
	// keepAlive is how long a stream is silent before a comment is sent and etcd is asked for its progress.
	keepAlive time.Duration
	// write is how long a client may take to accept a write before it is dropped.
	write time.Duration
	// behind is how long events from etcd may wait for the client before they are left in etcd.
	behind time.Duration
	// retry and maxRetry bound the growing delay between two attempts to reach etcd.
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

// New returns a stream of the changes in store.
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

// Follow makes streams that resume nothing begin at the revision of the copy that lists are answered from, so that no change
// falls between a list and the stream, and a stream can begin while etcd is unavailable. Without Follow, they begin at etcd's
// current revision. Follow also holds back events until the copy shows them; otherwise a client that sends a request because of
// an event would get the earlier state. Call Follow before the stream is used.
func (s *Stream) Follow(revision func() int64, catchUp func(context.Context, int64) error) {
	s.begin, s.catchUp = revision, catchUp
}

// Run serves until ctx ends, then ends all streams. Run must end together with the listener, whose drain would otherwise wait for
// the streams.
func (s *Stream) Run(ctx context.Context) error {
	<-ctx.Done()
	s.Close()
	return nil
}

// Close ends all streams and refuses new ones. It does not wait for them: the listener does.
func (s *Stream) Close() { s.once.Do(func() { close(s.closing) }) }

// Handler answers GET and HEAD. Errors are of the kinds errs.Invalid, and errs.Unavailable if the platform is stopping, there are
// too many clients, or etcd does not say where the stream begins.
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

// beginning returns the revision at which a stream that resumes nothing begins.
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
	h["X-Accel-Buffering"] = []string{"no"} // otherwise nginx buffers the events
	c.Writer.WriteHeader(http.StatusOK)
	c.Writer.WriteHeaderNow()
}

// serve sends what the follower finds until the client leaves, the caller's proof ends, or the platform stops.
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
				_ = s.catchUp(ctx, next.revision) // the batch is sent anyway if the copy lags for long
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

// gone handles a client that accepts no more.
func (s *Stream) gone(c *gin.Context, err error) {
	if !tooSlow(err) {
		return // the client left, or the platform is stopping
	}
	s.metrics.dropped.Inc()
	s.log.Warn("a client takes the events too slowly and is dropped", "request_id", httpx.RequestID(c),
		"caller", identity.Subject(c), "remote", c.Request.RemoteAddr, "error", err)
}
