package call

import (
	"net/http"
	"time"

	"github.com/openmep/mep/kit/errs"
)

// Ending is why the gateway ended a call that was under way.
type Ending struct {
	// Reason is one word for records.
	Reason string
	// Err says it to the client, as far as there is still a way to say anything.
	Err error
}

// End notes that the gateway ends the call, and reports whether it had not been noted before. Any goroutine may call it.
func (c *Call) End(e *Ending) bool { return c.ending.CompareAndSwap(nil, e) }

// Ending is why the gateway ended the call; nil when it did not. Any goroutine may call it.
func (c *Call) Ending() *Ending { return c.ending.Load() }

// Target is what the call is for, as the audit stream names it: by the names the platform knows. What stands in paths is the caller's.
func (c *Call) Target(method string) string {
	switch {
	case c.Instance != nil:
		return method + " /instances/" + c.Instance.ID
	case c.Info.Service != "":
		return method + " /services/" + c.Info.Service
	}
	return method + " route " + c.Info.Route
}

// Tellable reports whether there is a way to tell the client why a call ends that has an answer: a close frame, or trailers of gRPC. Any
// goroutine may ask.
func (c *Call) Tellable() bool { return c.GRPC || c.Writer.upgraded.Load() != nil }

// sayWhy is how long a call of gRPC that is ended may take to be told why.
const sayWhy = time.Second

// Cut makes the client see that the answer ends before it is whole: what is not written yet, is not. An answer of gRPC has a second left
// for its trailers. Call it once, after End; any goroutine may, until the handler of the request returns. What it returns may come later:
// it ends the connection of an upgraded call, for which it takes up to a second; nil: there is nothing left to do.
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
