package notify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/mepserver/registry"
)

// resume queues what happened between the cursors and the revision at which the notifier began to observe the registry. It
// reports whether it finished; if not, the cursors in etcd must stay as they are.
func (n *Notifier) resume(ctx context.Context, start *startCursors, now int64) bool {
	n.mu.Lock()
	orphans := maps.Clone(start.lagging)
	for item := range n.book.Collection().Snapshot().All() {
		if c, ok := start.lagging[item.Value.ID]; ok {
			n.feed(item).saved = c
			delete(orphans, item.Value.ID)
		}
	}
	n.mu.Unlock()
	for id := range orphans {
		// The cursor was saved while its subscription was being deleted.
		delete(start.lagging, id)
		if _, err := n.store.Do(ctx, clientv3.OpDelete(state.CursorKey(id))); err != nil {
			n.log.Warn("cursor of a deleted subscription not removed", "subscription", id, "error", err)
		}
	}
	for least := start.least(); least < now; {
		done, err := n.replay(ctx, least+1, now, start)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		least = max(least, done)
		if errors.Is(err, rpctypes.ErrCompacted) {
			n.log.Warn("the history since the last delivery was compacted, subscribers are brought up to date by comparing",
				"from", least, "to", now)
			n.compareAll(start)
			break
		}
		n.log.Warn("history not read yet, trying again", "from", least, "error", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(500 * time.Millisecond):
		}
	}
	n.mu.Lock()
	n.position = max(n.position, now)
	n.mu.Unlock()
	return true
}

// replay reads the history of the registry from etcd and hands it out. If it fails, it returns how far it got.
func (n *Notifier) replay(ctx context.Context, from, to int64, start *startCursors) (done int64, err error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), time.Minute)
	defer cancel()
	ch := n.store.Client.Watch(ctx, state.PrefixServices, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(from))
	probe := time.NewTicker(20 * time.Millisecond)
	defer probe.Stop()
	seen := from - 1
	for seen < to {
		select {
		case <-ctx.Done():
			return seen - 1, ctx.Err()
		case <-probe.C:
			if err := n.store.Client.RequestProgress(ctx); err != nil {
				return seen - 1, err
			}
		case resp, ok := <-ch:
			if !ok {
				return seen - 1, errors.New("the watch ended")
			}
			if err := resp.Err(); err != nil {
				return seen - 1, err // the last revision seen may be incomplete
			}
			n.mu.Lock()
			for _, ev := range resp.Events {
				if seen = ev.Kv.ModRevision; seen > to {
					break
				}
				c, err := n.historic(ev)
				if err != nil {
					n.log.Error("change ignored", "key", string(ev.Kv.Key), "error", err)
					continue
				}
				n.dispatch(c, start)
			}
			n.mu.Unlock()
			if resp.IsProgressNotify() {
				seen = max(seen, resp.Header.Revision)
			}
		}
	}
	return seen, nil
}

func (n *Notifier) historic(ev *clientv3.Event) (registry.Change, error) {
	c := registry.Change{Key: string(ev.Kv.Key), Revision: ev.Kv.ModRevision}
	var err error
	if ev.PrevKv != nil {
		if c.Old, err = item(ev.PrevKv); err != nil {
			return c, fmt.Errorf("before the change: %w", err)
		}
	}
	if ev.Type == mvccpb.Event_PUT {
		c.New, err = item(ev.Kv)
		return c, err
	}
	if c.Old == nil {
		// The record before the removal was compacted, but the removal kept a copy.
		app, id, err := state.SplitKey(state.PrefixServices, c.Key)
		if err != nil {
			return c, err
		}
		if gone, ok := n.removed.Snapshot().Get(state.RemovedServiceKey(app, id)); ok {
			c.Old = gone
		}
	}
	return c, nil
}

func item(kv *mvccpb.KeyValue) (*registry.Item, error) {
	svc, err := registry.Decode(state.PrefixServices, string(kv.Key), kv.Value, kv.ModRevision)
	if err != nil {
		return nil, err
	}
	return &registry.Item{Key: string(kv.Key), Value: svc, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision}, nil
}

// compareAll brings every subscriber up to date without history.
func (n *Notifier) compareAll(start *startCursors) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for item := range n.book.Collection().Snapshot().All() {
		f := n.feed(item)
		f.behind, f.tail, f.laggingFrom = true, start.of(item.Value.ID), time.Now()
		n.work(f)
	}
}
