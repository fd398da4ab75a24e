package events

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
)

// follower reads from etcd what one client has not seen yet, and hands it over as frames.
//
// It watches through the store's client, not through its Source: the Source of an embedded store does not report the value before
// a change, and can request the progress of one watch only, which is the mirror's (docs/adr/0003-in-process-event-stream.md).
type follower struct {
	store   *etcd.Store
	pace    pace
	skipped *skipped
	begin   func(context.Context) (int64, error)
	// watch tells the gRPC streams of the clients apart. A client that catches up must delay neither the others nor the mirror of
	// this process: etcd reports no progress to a watch while another watch on the same stream lags.
	watch  string
	want   filter
	caller caller
	out    chan batch

	// at is how far the client is, including events it does not want; told is the revision of the last id it was sent.
	at   position
	told int64
	// lost says why the client cannot resume from at; empty as long as it can.
	lost ResetReason

	// The state of the current watch.
	cluster  uint64
	heard    bool
	revision int64 // the revision whose events are being counted
	next     int   // the index of the next event made from it
	pending  batch
}

// errBehind ends a watch whose events wait too long for the client. They are left in etcd, where they take no room.
var errBehind = errors.New("the client is behind")

// run follows etcd until ctx ends. It gives up only on errRevoked.
func (f *follower) run(ctx context.Context) error {
	wait := f.pace.retry
	for {
		f.heard = false
		err := f.resume(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errRevoked):
			return err
		case errors.Is(err, errBehind):
			continue
		}
		if reason, ok := errors.AsType[ResetReason](err); ok {
			f.lost = reason
		}
		if f.heard {
			wait = f.pace.retry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, f.pace.maxRetry)
	}
}

// resume continues from the client's position until something breaks.
func (f *follower) resume(ctx context.Context) error {
	f.pending = batch{}
	if f.lost != "" {
		revision, err := f.begin(ctx)
		if err != nil {
			return err
		}
		f.at = position{revision, whole}
		if err := f.pending.add(f.at, &event{name: mm5.EventReset, data: mm5.ResetEvent{Reason: string(f.lost), Revision: revision}}); err != nil {
			return err
		}
		f.lost, f.cluster = "", 0
		if err := f.handOver(ctx); err != nil && !errors.Is(err, errBehind) {
			return err
		}
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "mep-events", f.watch))
	defer cancel()
	// From the revision itself, not the next one: the client may have seen only a part of it, and etcd reports no progress to a
	// watch that begins in the future.
	ch := f.store.Client.Watch(ctx, state.Root, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(f.at.revision),
		clientv3.WithCreatedNotify(), clientv3.WithFragment())
	f.revision = 0
	probe := time.NewTicker(f.pace.keepAlive)
	defer probe.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case resp, ok := <-ch:
			if !ok {
				return errors.New("the watch ended")
			}
			last = time.Now()
			if err := f.receive(ctx, &resp); err != nil {
				return err
			}
		case <-probe.C:
			if time.Since(last) > maxSilence*f.pace.keepAlive {
				return errors.New("the watch has gone silent")
			}
			f.askProgress(ctx)
		}
	}
}

// maxSilence is how many progress requests etcd may leave unanswered.
const maxSilence = 4

// askProgress asks etcd for the progress of the watch. A failure shows as silence.
func (f *follower) askProgress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = f.store.Client.RequestProgress(ctx)
}

// receive makes events from a response of the watch.
func (f *follower) receive(ctx context.Context, resp *clientv3.WatchResponse) error {
	if err := resp.Err(); err != nil {
		if resp.CompactRevision != 0 || errors.Is(err, rpctypes.ErrCompacted) {
			return ResetCompacted
		}
		return fmt.Errorf("watch: %w", err)
	}
	f.heard = true
	if err := f.sameStore(ctx, resp); err != nil {
		return err
	}
	for _, ev := range resp.Events {
		if f.caller.revokedBy(ev) {
			return errRevoked
		}
		if err := f.take(ctx, ev); err != nil {
			return err
		}
	}
	if resp.IsProgressNotify() {
		// Everything up to this revision has been received, whether it made events or not.
		if here := (position{resp.Header.Revision, whole}); f.at.before(here) {
			f.at = here
		}
		if f.at.revision > f.told && len(f.pending.frames) == 0 {
			f.pending.frames = appendPlace(f.pending.frames, f.at)
		}
	}
	return f.handOver(ctx)
}

// sameStore checks whether the client's position is one of the store that answers.
func (f *follower) sameStore(ctx context.Context, resp *clientv3.WatchResponse) error {
	if f.cluster == 0 {
		f.cluster = resp.Header.ClusterId
	}
	if resp.Header.ClusterId != f.cluster {
		return ResetReplaced
	}
	if f.caller.verified == 0 {
		f.caller.verified = resp.Header.Revision
	}
	if resp.Header.Revision >= f.at.revision {
		return nil
	}
	// The member may merely lag behind the one that gave the client its position.
	revision, err := f.store.Revision(ctx, state.Root)
	if err == nil && revision < f.at.revision {
		return ResetFuture
	}
	return err
}

// take makes events from one change and keeps those that the client wants and has not seen.
func (f *follower) take(ctx context.Context, ev *clientv3.Event) error {
	if ev.Kv.ModRevision != f.revision {
		f.revision, f.next = ev.Kv.ModRevision, 0
	}
	if !f.at.before(position{f.revision, whole}) {
		return nil
	}
	events, err := translate(ev)
	if reason, ok := errors.AsType[ResetReason](err); ok {
		return reason
	}
	if err != nil {
		f.skipped.say(string(ev.Kv.Key), f.revision, err)
		return nil
	}
	for i := range events {
		here := position{f.revision, f.next}
		f.next++
		if !f.at.before(here) {
			continue
		}
		f.at = here
		if !f.want.passes(&events[i]) {
			continue
		}
		if err := f.pending.add(here, &events[i]); err != nil {
			return err
		}
		if len(f.pending.frames) >= maxBatch {
			if err := f.handOver(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// handOver waits until the client takes the pending batch. The error is errBehind if that took so long that nothing more should
// be received before the client has caught up.
func (f *follower) handOver(ctx context.Context) error {
	if len(f.pending.frames) == 0 {
		return nil
	}
	begun := time.Now()
	select {
	case f.out <- f.pending:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.pending, f.told = batch{}, f.at.revision
	if time.Since(begun) > f.pace.behind {
		return errBehind
	}
	return nil
}
