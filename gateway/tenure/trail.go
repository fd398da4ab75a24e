package tenure

import (
	"fmt"
	"sync"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/kit/audit"
)

// actionEnd is the action of lines of the audit stream about calls that were ended.
const actionEnd = "access.end"

// lines is how many calls that are ended at once have lines of their own in the audit stream.
const lines = 25

// trail tells the audit stream of calls that were ended, from a goroutine of its own: a disk that hangs delays no ending. The lines count
// with the denials, which are bounded: who can end calls of its own could fill the stream otherwise.
type trail struct {
	to   *audit.Log
	wake chan struct{}

	mu      sync.Mutex
	waiting []audit.Entry
	more    int // that have no lines of their own
}

// add notes that a call was ended, for when ring is called.
func (t *trail) add(c *call.Call, method string, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) >= lines {
		t.more++
		return
	}
	e := audit.Entry{
		Action: actionEnd, Result: audit.Denied, Source: c.Info.Client.String(), Target: c.Target(method), RequestID: c.Info.RequestID,
		Detail: why.Error(),
	}
	if c.Caller != nil {
		e.Caller, e.Client, e.Via = c.Caller.Subject, c.Caller.ClientID, c.Caller.Via
	}
	t.waiting = append(t.waiting, e)
}

func (t *trail) ring() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// start writes what is added. What it returns writes what is left, and ends it.
func (t *trail) start() (stop func()) {
	var writing sync.WaitGroup
	done := make(chan struct{})
	writing.Go(func() {
		for {
			select {
			case <-t.wake:
				t.write()
			case <-done:
				t.write()
				return
			}
		}
	})
	return func() {
		close(done)
		writing.Wait()
	}
}

func (t *trail) write() {
	t.mu.Lock()
	waiting, more := t.waiting, t.more
	t.waiting, t.more = nil, 0
	t.mu.Unlock()
	for _, e := range waiting {
		t.to.Busy(e)
	}
	if more > 0 {
		t.to.Busy(audit.Entry{
			Action: actionEnd, Result: audit.Denied, Caller: "platform", Detail: fmt.Sprintf("and %d more calls", more),
		})
	}
}
