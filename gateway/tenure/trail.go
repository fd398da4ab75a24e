package tenure

import (
	"fmt"
	"sync"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/kit/audit"
)

// actionEnd is the action of audit entries about calls that were ended.
const actionEnd = "access.end"

// lines is how many of the calls that are ended at once get audit entries of their own.
const lines = 25

// trail reports ended calls to the audit stream, from a goroutine of its own, so that a disk that hangs delays no ending. Its entries count
// as denials, which are bounded: otherwise a client that can end its own calls could fill the stream.
type trail struct {
	to   *audit.Log
	wake chan struct{}

	mu      sync.Mutex
	waiting []audit.Entry
	more    int // calls without entries of their own
}

// add queues an entry about an ended call. It is written once ring is called.
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

// start starts a goroutine that writes what is added. stop writes the rest and ends the goroutine.
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
