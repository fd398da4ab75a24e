package notify

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/leader"
)

const notFound = errs.NotFound

// flushInterval is how often the cursors are saved. After a crash, what was delivered since the last save is delivered
// again.
const flushInterval = 250 * time.Millisecond

// lagTolerance is how long a subscriber may lag before it gets a cursor of its own; until then it holds back the common
// position.
const lagTolerance = 2 * time.Second

// positionID is the id of the cursor of all subscribers that do not lag. No subscription has this id.
const positionID = "position"

// startCursors says how far every subscriber had been served when a term began.
type startCursors struct {
	position int64
	lagging  map[string]int64 // by subscription id
}

func (s *startCursors) of(subscriptionID string) int64 {
	if c, ok := s.lagging[subscriptionID]; ok {
		return c
	}
	return s.position
}

// least returns the revision up to which every subscriber has been served.
func (s *startCursors) least() int64 {
	least := s.position
	for _, c := range s.lagging {
		least = min(least, c)
	}
	return least
}

// loadCursors reads the cursors from etcd itself, because the copy may lag behind a predecessor's last writes. It retries
// until ctx ends.
func (n *Notifier) loadCursors(ctx context.Context) (*startCursors, error) {
	for {
		resp, err := n.store.Do(ctx, clientv3.OpGet(state.PrefixCursors, clientv3.WithPrefix()))
		if err == nil {
			start := &startCursors{lagging: make(map[string]int64)}
			for _, kv := range resp.Get().Kvs {
				c, err := state.Decode[state.Cursor](kv.Value)
				if err != nil {
					n.log.Error("cursor ignored", "key", string(kv.Key), "error", err)
					continue
				}
				if id := string(kv.Key[len(state.PrefixCursors):]); id == positionID {
					start.position = c.Revision
				} else {
					start.lagging[id] = c.Revision
				}
			}
			return start, n.mirror.WaitRevision(ctx, resp.Get().Header.Revision)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		n.log.Warn("delivery waits for etcd", "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// opsPerTxn stays below etcd's limit of 128 operations.
const opsPerTxn = 100

// saveCursors writes what has changed since the last time: first the cursors of the subscribers that lag, then the
// position. Then it removes the cursors of those that caught up, and the records of removed services that all subscribers
// know of. A crash in between leaves cursors that are too low, never too high. If now is zero, every subscriber that lags
// gets its own cursor.
func (n *Notifier) saveCursors(ctx context.Context, term leader.Term, now time.Time) error {
	plan := n.planCursors(now)
	for _, ops := range [][]clientv3.Op{plan.lagging, plan.position, plan.caughtUp, plan.forgotten} {
		for len(ops) > 0 {
			k := min(len(ops), opsPerTxn)
			resp, err := n.store.Txn(ctx, term.Fence(), ops[:k], nil)
			if err != nil {
				return err
			}
			if !resp.Succeeded {
				return errors.New("this process no longer leads")
			}
			ops = ops[k:]
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.saved = plan.saved
	for f, c := range plan.cursors {
		f.saved, f.unsure = c, false
	}
	return nil
}

type cursorPlan struct {
	lagging, position, caughtUp, forgotten []clientv3.Op
	saved                                  int64
	cursors                                map[*feed]int64
}

func (n *Notifier) planCursors(now time.Time) cursorPlan {
	n.mu.Lock()
	defer n.mu.Unlock()
	plan := cursorPlan{cursors: make(map[*feed]int64)}
	position, served := n.position, n.position
	for id, f := range n.feeds {
		c := f.cursor(n.position)
		if f.lagging() {
			served = min(served, c)
			if !now.IsZero() && now.Sub(f.laggingFrom) < lagTolerance && f.saved == 0 {
				position = min(position, c)
				continue
			}
			if c != f.saved || f.unsure {
				f.unsure = true
				plan.lagging = append(plan.lagging, clientv3.OpPut(state.CursorKey(id), encodeCursor(c)))
				plan.cursors[f] = c
			}
		} else if f.saved != 0 || f.unsure {
			f.unsure = true
			plan.caughtUp = append(plan.caughtUp, clientv3.OpDelete(state.CursorKey(id)))
			plan.cursors[f] = 0
		}
	}
	plan.saved = max(position, n.saved)
	if plan.saved != n.saved {
		plan.position = []clientv3.Op{clientv3.OpPut(state.CursorKey(positionID), encodeCursor(plan.saved))}
	}
	for item := range n.removed.Snapshot().All() {
		if item.ModRevision <= min(served, plan.saved) && len(plan.forgotten) < 10*opsPerTxn {
			plan.forgotten = append(plan.forgotten, clientv3.OpDelete(item.Key))
		}
	}
	return plan
}

func encodeCursor(revision int64) string {
	return fmt.Sprintf(`{"v":%d,"revision":%d}`, state.SchemaVersion, revision)
}

// Saved returns the revision up to which every subscriber had been served when the cursors were last saved.
func (n *Notifier) Saved() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	least := n.saved
	for _, f := range n.feeds {
		if f.saved != 0 {
			least = min(least, f.saved)
		}
	}
	return least
}
