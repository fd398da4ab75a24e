package watched

import (
	"context"
	"sync"
)

// Progress lets others wait for somebody who makes something of the records of a mirror: every change is marked when it is seen, and settled
// when what is made of it is in use. The zero value is not usable; use NewProgress.
type Progress struct {
	mirror *Mirror

	mu      sync.Mutex
	marked  uint64
	settled uint64
	moved   chan struct{} // closed when settled moves
}

// NewProgress makes a Progress in which the first piece of work is marked already.
func NewProgress(m *Mirror) *Progress {
	return &Progress{mirror: m, marked: 1, moved: make(chan struct{})}
}

// Mark says that there is something new to be worked on.
func (p *Progress) Mark() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marked++
}

// Marked is how much was marked. Who works takes it together with what is to be worked on, under a lock that Mark is called under, too.
func (p *Progress) Marked() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.marked
}

// Settle says that everything up to a value of Marked is in use.
func (p *Progress) Settle(marked uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled = marked
	close(p.moved)
	p.moved = make(chan struct{})
}

// CatchUp returns when what was in etcd at a revision, and what was marked before the call, is in use; or with the context's error.
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
