package book

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/watched"
)

// sweepAgain is how long after a failure a sweep is tried again.
const sweepAgain = 10 * time.Second

// gone collects the app instances whose records were deleted.
type gone struct {
	apps *watched.Collection[struct{}]
	some chan struct{}
	mu   sync.Mutex
	at   map[string]int64 // revisions of the deletions, by app instance
}

func (g *gone) follow(m *watched.Mirror) {
	g.some, g.at = make(chan struct{}, 1), make(map[string]int64)
	// Only the existence of the records matters.
	g.apps = watched.Add(m, "gateway_apps", state.PrefixApps, func(string, []byte, int64) (struct{}, error) { return struct{}{}, nil })
	g.apps.Observe(func(c watched.Change[struct{}]) {
		if c.New == nil {
			g.add(strings.TrimPrefix(c.Key, state.PrefixApps), c.Revision)
		}
	})
}

func (g *gone) add(app string, revision int64) {
	g.mu.Lock()
	g.at[app] = revision
	g.mu.Unlock()
	select {
	case g.some <- struct{}{}:
	default:
	}
}

func (g *gone) list() map[string]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.at)
}

// done forgets an app instance, unless its record was deleted again.
func (g *gone) done(app string, revision int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at[app] == revision {
		delete(g.at, app)
	}
}

// Sweep removes what app instances leave behind when they end: the access requests they made or had to decide on, and their API keys.
// Records written after the end belong to the next life of an instance, and stay. Any number of processes may sweep. Sweep returns when
// ctx ends.
func (b *Book) Sweep(ctx context.Context, trail *audit.Log, log *slog.Logger) error {
	g := &b.Access.gone
	for {
		var again <-chan time.Time
		if err := b.sweep(ctx, trail); err != nil && ctx.Err() == nil {
			log.Warn("what app instances that ended left at the gateway is not cleared away yet, trying again", "error", err)
			again = time.After(sweepAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-g.some:
		case <-again:
		}
	}
}

func (b *Book) sweep(ctx context.Context, trail *audit.Log) error {
	g := &b.Access.gone
	for app, revision := range g.list() {
		until := revision
		at := b.Access.mirror.Revision() // read before checking whether the app is back
		if _, back := g.apps.Snapshot().Get(state.AppKey(app)); !back {
			until = max(until, at)
		}
		if err := b.leave(ctx, app, until, trail); err != nil {
			return err
		}
		g.done(app, revision)
	}
	return nil
}

// leave removes what an app instance left behind, except what was written after the revision.
func (b *Book) leave(ctx context.Context, app string, until int64, trail *audit.Log) error {
	for item := range b.Access.items.Snapshot().Find(b.Access.parties, app) {
		done, err := remove(ctx, b.Access.ledger, item, until)
		if err != nil {
			return err
		}
		if done {
			ended(trail, "gateway.access.delete", item.Value.Info.ID, app)
		}
	}
	for item := range b.Keys.items.Snapshot().Find(b.Keys.consumers, app) {
		done, err := remove(ctx, b.Keys.ledger, item, until)
		if err != nil {
			return err
		}
		if done {
			ended(trail, "gateway.api_key.delete", item.Value.Info.ID, app)
		}
	}
	return nil
}

func remove[V any](ctx context.Context, l *ledger, item *watched.Item[V], until int64) (done bool, err error) {
	if item.ModRevision > until {
		return false, nil
	}
	_, done, err = l.put(ctx, item.Unchanged(), clientv3.OpDelete(item.Key))
	return done, err
}

func ended(trail *audit.Log, action, target, app string) {
	trail.Write(audit.Entry{Action: action, Result: audit.Success, Caller: "platform", Target: target, Detail: "app instance " + app + " ended"})
}
