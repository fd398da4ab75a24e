package notify

import (
	"context"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/watched"
)

// maxDeadLetters is how many dead letters are kept; the oldest are removed first.
const maxDeadLetters = 1000

// letters returns the dead letters for events. The caller holds the lock.
func (n *Notifier) letters(f *feed, events []event, now time.Time) []state.DeadLetter {
	sub := f.sub.Value
	list := make([]state.DeadLetter, len(events))
	for i, e := range events {
		list[i] = state.DeadLetter{
			Version: state.Current(), SubscriptionID: sub.ID, AppInstanceID: sub.AppInstanceID,
			CallbackReference: sub.Record.CallbackReference, Revision: e.revision, ChangeType: e.change,
			SerInstanceID: e.svc.ID, SerName: e.svc.Name, FirstAttempt: e.queued.UTC(),
			GivenUp: now.UTC(), LastError: f.lastError,
		}
	}
	list[0].Attempts, list[0].FirstAttempt = f.attempts, f.firstAttempt.UTC()
	return list
}

// bury records dead letters and removes the oldest to make room for them.
func (n *Notifier) bury(ctx context.Context, letters []state.DeadLetter) error {
	if len(letters) > maxDeadLetters {
		letters = letters[len(letters)-maxDeadLetters:]
	}
	var ops []clientv3.Op
	for _, l := range letters {
		value, err := state.Encode(l)
		if err != nil {
			return err
		}
		key := fmt.Sprintf("%s%s/%016x-%s", state.PrefixDeadLetters, l.SubscriptionID, l.Revision, l.SerInstanceID)
		ops = append(ops, clientv3.OpPut(key, value))
	}
	kept := slices.Collect(n.deadLetters.Snapshot().All())
	if excess := len(kept) + len(letters) - maxDeadLetters; excess > 0 {
		slices.SortFunc(kept, func(a, b *watched.Item[state.DeadLetter]) int { return int(a.ModRevision - b.ModRevision) })
		for _, old := range kept[:min(excess, len(kept))] {
			ops = append(ops, clientv3.OpDelete(old.Key))
		}
	}
	for len(ops) > 0 {
		k := min(len(ops), opsPerTxn)
		if _, err := n.store.Txn(ctx, nil, ops[:k], nil); err != nil {
			return err
		}
		ops = ops[k:]
	}
	n.metrics.dead.Add(float64(len(letters)))
	return nil
}
