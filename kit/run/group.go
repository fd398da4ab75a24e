// Package run supervises the goroutines of a daemon.
package run

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// Group runs named workers until the first one fails or Stop is called, and waits for all of them. A panic in a worker
// becomes its error.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error
	failed chan struct{}
}

// NewGroup returns a group whose workers end with ctx.
func NewGroup(ctx context.Context) *Group {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{ctx: ctx, cancel: cancel, failed: make(chan struct{})}
}

// Go starts a worker. Its context ends when the group stops or another worker fails. A worker that returns nil has done
// its work; the others continue.
func (g *Group) Go(name string, work func(context.Context) error) {
	g.wg.Go(func() {
		if err := safely(g.ctx, work); err != nil && g.ctx.Err() == nil {
			g.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
}

func safely(ctx context.Context, work func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return work(ctx)
}

func (g *Group) fail(err error) {
	g.once.Do(func() {
		g.err = err
		g.cancel(err)
		close(g.failed)
	})
}

// Failed returns a channel that is closed when a worker has failed.
func (g *Group) Failed() <-chan struct{} { return g.failed }

// Err returns the error of the worker that failed first; it is set once Failed is closed.
func (g *Group) Err() error {
	select {
	case <-g.failed:
		return g.err
	default:
		return nil
	}
}

// Stop ends all workers and waits for them until ctx ends.
func (g *Group) Stop(ctx context.Context) error {
	g.cancel(context.Canceled)
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return g.Err()
	case <-ctx.Done():
		return fmt.Errorf("workers still running: %w", ctx.Err())
	}
}
