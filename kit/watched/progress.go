package watched

import (
	"context"
	"sync"
)

// Progress lets callers wait for a worker that derives something from the records of a mirror: every change is marked when it is seen, and
// settled when the result is in use. The zero value is not usable; use NewProgress.
type Progress struct {
	mirror *Mirror

	mu      sync.Mutex
	marked  uint64
	settled uint64
	moved   chan struct{} // closed when settled moves
}

// NewProgress returns a Progress in which the first piece of work is already marked.
func NewProgress(m *Mirror) *Progress {
	return &Progress{mirror: m, marked: 1, moved: make(chan struct{})}
}

// Mark records a new piece of work.
func (p *Progress) Mark() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marked++
}

// Marked returns the number of marks. The worker must call it while it takes the work itself, under a lock that also guards the calls of
// Mark.
func (p *Progress) Marked() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.marked
}

// Settle records that all work up to a value of Marked is in use.
func (p *Progress) Settle(marked uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled = marked
	close(p.moved)
	p.moved = make(chan struct{})
}

// CatchUp waits until the state of etcd at a revision, and all work marked before the call, is in use. It returns the context's error if
// that ends first.
func (p *Progress) CatchUp(ctx context.Context, revision int64) error {
	if err := p.mirror.WaitRevision(ctx, revision); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for want := p.marked; p.settled < want; {
		moved := p.moved
		p.mu.Unlock()
		select {
		case <-moved:
			p.mu.Lock()
		case <-ctx.Done():
			p.mu.Lock()
			return ctx.Err()
		}
	}
	return nil
}
