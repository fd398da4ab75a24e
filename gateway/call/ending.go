package call

import (
	"net/http"
	"time"

	"github.com/openmep/mep/kit/errs"
)

// Ending is why the gateway ended a call in flight.
type Ending struct {
	// Reason is one word for records.
	Reason string
	// Err tells the client why, as far as the client can still be told.
	Err error
}

// End records e as the reason why the gateway ends the call, and reports whether it is the first one. Any goroutine may call it.
func (c *Call) End(e *Ending) bool { return c.ending.CompareAndSwap(nil, e) }

// Ending returns why the gateway ended the call; nil when it did not. Any goroutine may call it.
func (c *Call) Ending() *Ending { return c.ending.Load() }

// Target returns what the call is for, as the audit stream names it: by names that the platform knows, not by paths, which callers choose.
func (c *Call) Target(method string) string {
	switch {
	case c.Instance != nil:
		return method + " /instances/" + c.Instance.ID
	case c.Info.Service != "":
		return method + " /services/" + c.Info.Service
	}
	return method + " route " + c.Info.Route
}

// Tellable reports whether the client of a call that has an answer can be told why the call ends: by a close frame, or by gRPC trailers.
// Any goroutine may call it.
func (c *Call) Tellable() bool { return c.GRPC || c.Writer.upgraded.Load() != nil }

// sayWhy is the time there is to tell a gRPC client why its call was ended.
const sayWhy = time.Second

// Cut makes the client see that the answer is incomplete: nothing more is written, except that a gRPC answer has one second left for its
// trailers. Call it once, after End and before the handler of the request returns, from any goroutine. rest, which may be called later,
// closes an upgraded connection within about a second; nil means that nothing is left to do.
func (c *Call) Cut() (rest func()) {
	w := &c.Writer
	w.cut.Store(true)
	if t := w.upgraded.Load(); t != nil {
		t.ended.Store(true)
		frame := closeFrame(policyViolation, "the right to this call was taken back")
		if why := c.Ending().Err; errs.KindOf(why) == errs.Unavailable {
			frame = closeFrame(goingAway, why.Error())
		}
		return func() { t.end(frame) }
	}
	if c.GRPC {
		w.expire(time.Now().Add(sayWhy))
	} else {
		w.expire(longAgo)
	}
	return nil
}

// expire sets the time after which nothing can be written.
func (w *Writer) expire(at time.Time) {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(at) // not every writer has deadlines
}
