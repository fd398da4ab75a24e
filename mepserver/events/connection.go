package events

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

// connection writes to a client, and does not wait long for it.
type connection struct {
	w       http.ResponseWriter
	control *http.ResponseController
	limit   time.Duration

	mu   sync.Mutex
	over bool
}

// errOver is returned by writes once the stream is being ended.
var errOver = errors.New("the stream is being ended")

// slowError means that a client did not accept a write in time.
type slowError struct{ cause error }

// Error implements error.
func (e *slowError) Error() string {
	return fmt.Sprintf("the client does not take what is written: %v", e.cause)
}

// Unwrap returns the cause.
func (e *slowError) Unwrap() error { return e.cause }

func tooSlow(err error) bool {
	_, ok := errors.AsType[*slowError](err)
	return ok
}

func newConnection(w gin.ResponseWriter, limit time.Duration) *connection {
	c := &connection{w: w, limit: limit}
	inner := http.ResponseWriter(w)
	if u, ok := w.(interface{ Unwrap() http.ResponseWriter }); ok {
		inner = u.Unwrap() // gin's own Flush reports no errors
	}
	c.control = http.NewResponseController(inner)
	return c
}

// write sends bytes to the client. The error is a *slowError if the client did not accept them in time.
//
// The server's own timeout is for a whole response and would end the stream. Between two writes there is no deadline: HTTP/2 ends
// a stream when its deadline passes, even if nothing is being written.
func (c *connection) write(b []byte) error {
	if err := c.deadline(time.Now().Add(c.limit)); err != nil {
		return err
	}
	begun := time.Now()
	_, err := c.w.Write(b)
	if err == nil {
		err = c.control.Flush()
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.over && (errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) >= c.limit) {
			return &slowError{err}
		}
		return err
	}
	return c.deadline(time.Time{})
}

// deadline sets the time by which the client must have accepted what is written.
func (c *connection) deadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return errOver
	}
	if err := c.control.SetWriteDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// endWith prevents new writes once closing is closed, and cuts short a write that waits for the client. The function it returns
// stops that, and bounds the rest: the end of the response, which net/http writes.
func (c *connection) endWith(closing <-chan struct{}) (stop func()) {
	stopped := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-closing:
			c.mu.Lock()
			defer c.mu.Unlock()
			c.over = true
			_ = c.control.SetWriteDeadline(time.Now().Add(lastWrite))
		case <-stopped:
		}
	})
	return func() {
		close(stopped)
		// The response must not be touched once the handler has returned.
		watching.Wait()
		_ = c.deadline(time.Now().Add(c.limit))
	}
}

// lastWrite is how long a client may take to accept a write in progress when the platform stops.
const lastWrite = 250 * time.Millisecond
