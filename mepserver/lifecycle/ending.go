package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/fault"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/operation"
	"github.com/openmep/mep/mepserver/termination"
)

// bringing is what one process knows about ending an app instance, beyond what is stored.
type bringing struct {
	*Engine
	id string
	// of identifies the ending that the fields below are about: a termination may replace a stop.
	of string
	// told is the operation that the subscribers are being notified of; stop ends the notification at once.
	told string
	stop func()
	// step is the step being carried out; it is ahead of the stored one only if the store has no room for the next one.
	step state.EndingStep
	// until is when the wait of the step ends by this process's monotonic clock, which no one can change.
	until     time.Time
	untilStep string
}

// bring ends an app instance, step by step. Every step is a transaction that succeeds only if nothing it was based on has
// changed; whatever happens in between, the next process begins with the stored step.
func (e *Engine) bring(ctx context.Context, appInstanceID string, wake <-chan struct{}) {
	b := &bringing{Engine: e, id: appInstanceID, stop: func() {}}
	failures := 0
	for ctx.Err() == nil {
		app, ok := e.manager.Apps.Get(appInstanceID)
		if !ok || app.Value.Record.Ending == nil {
			if e.leave(appInstanceID) {
				return
			}
			continue
		}
		wait, err := b.do(ctx, app)
		switch {
		case errors.Is(err, errOvertaken):
			// Someone else changed the record, or leads by now.
			failures++
			wait = min(10*time.Millisecond<<min(failures-1, 7), time.Second)
		case err != nil && ctx.Err() == nil:
			failures++
			wait = min(time.Second<<min(failures-1, 5), 30*time.Second)
			e.log.Warn("the end of an app instance is delayed, trying again", "app", appInstanceID, "step", b.step, "error", err)
		case err == nil:
			failures = 0
		}
		if wait <= 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-time.After(wait):
		}
	}
	e.mu.Lock()
	delete(e.endings, appInstanceID)
	e.mu.Unlock()
}

// leave ends the work for an app instance unless there is work again, and reports whether it did.
func (e *Engine) leave(appInstanceID string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if app, ok := e.manager.Apps.Get(appInstanceID); ok && app.Value.Record.Ending != nil {
		return false
	}
	delete(e.endings, appInstanceID)
	return true
}

// do carries out the current step and returns how long to wait before it is called again.
func (b *bringing) do(ctx context.Context, app *apps.Item) (time.Duration, error) {
	ending := app.Value.Record.Ending
	if of := fmt.Sprint(app.CreateRevision, ending.Action, ending.Operation); of != b.of {
		b.stop()
		b.of, b.step, b.untilStep = of, ending.Step, ""
	}
	if order(b.step) < order(ending.Step) {
		b.step = ending.Step
	}
	if b.step == state.StepNotice {
		return b.notice(ctx, app)
	}
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	switch b.step {
	case state.StepRules:
		return b.rules(ctx, app)
	case state.StepServices:
		return b.clear(ctx, app, b.services)
	case state.StepSubscriptions:
		return b.clear(ctx, app, b.subscriptions)
	case state.StepCredentials:
		return b.credentials(ctx, app)
	}
	return b.end(ctx, app)
}

// remaining returns how much is left of the wait named by what, which lasts until the given moment, but no longer than most
// from when this process began it.
func (b *bringing) remaining(what string, until time.Time, most time.Duration) time.Duration {
	if b.untilStep != what {
		now := time.Now()
		b.untilStep, b.until = what, now.Add(after(b.manager.now(), until, most))
	}
	return time.Until(b.until)
}

// lateNotice is how long subscribers are still notified once one of them has confirmed.
const lateNotice = 10 * time.Second

// notice notifies the app and waits for it.
func (b *bringing) notice(ctx context.Context, app *apps.Item) (time.Duration, error) {
	ending := app.Value.Record.Ending
	wait := b.remaining(ending.Operation+ending.Deadline.String(), ending.Deadline, time.Duration(ending.Timeout)*time.Second)
	if ending.Timeout == 0 || !ending.Confirmed.IsZero() || wait <= 0 {
		if ending.Timeout == 0 {
			b.stop() // those not notified yet need not be any more
		} else {
			time.AfterFunc(lateNotice, b.stop)
		}
		err := b.advance(ctx, app, func(c *change, next *state.Ending) error {
			next.RulesUntil = b.manager.now().Add(b.manager.Policy().RuleTimeout).UTC()
			if next.Confirmed.IsZero() && next.Timeout > 0 {
				next.Detail = describe(next)
			}
			plans, err := b.manager.running(b.id, false)
			for _, p := range plans {
				c.add(p.Cmps, p.Ops)
			}
			return err
		})
		if err == nil {
			b.log.Info("app instance ends", "app", b.id, "action", ending.Action, "because", describe(ending))
		}
		return 0, err
	}
	if b.told != ending.Operation {
		b.told = ending.Operation
		notice := termination.Notice{AppInstanceID: b.id, ID: ending.Operation, Action: ending.Action, Until: b.until}
		tctx, cancel := context.WithDeadline(ctx, b.until)
		b.stop = cancel
		b.workers.Go(func() {
			defer cancel()
			b.teller.Tell(tctx, notice)
		})
		fault.Point("ending.notice")
	}
	return wait, nil
}

// rules waits until the rules have been withdrawn.
func (b *bringing) rules(ctx context.Context, app *apps.Item) (time.Duration, error) {
	ending := app.Value.Record.Ending
	fault.Point("ending.rules")
	late := b.waiting(b.id)
	if wait := b.remaining("rules "+ending.RulesUntil.String(), ending.RulesUntil, b.manager.Policy().RuleTimeout); len(late) > 0 && wait > 0 {
		return wait, nil
	}
	return 0, b.advance(ctx, app, func(_ *change, next *state.Ending) error {
		if len(late) > 0 {
			next.Detail = strings.TrimPrefix(next.Detail+"; "+strings.Join(late, " and ")+
				" did not report in time that the rules are taken back, which is tried further", "; ")
		}
		return nil
	})
}

// advance stores the next step, together with what edit adds.
func (b *bringing) advance(ctx context.Context, app *apps.Item, edit func(c *change, next *state.Ending) error) error {
	c := &change{}
	rec := app.Value.Record
	next := *rec.Ending
	next.Step = following(b.step)
	if edit != nil {
		if err := edit(c, &next); err != nil {
			return err
		}
	}
	rec.Ending = &next
	if err := c.app(b.id, app, rec); err != nil {
		return err
	}
	done, err := b.commit(ctx, c)
	if errors.Is(err, errs.InsufficientStorage) && next.Action == mp1.ActionTerminating {
		// The steps that follow only remove, and so free space; removing the record of the rules puts them out of force, too.
		b.step = next.Step
		return nil
	}
	if err != nil {
		return err
	}
	if !done {
		return errOvertaken
	}
	fault.Point("ending.after." + string(b.step))
	b.step = next.Step
	return nil
}

// errOvertaken means that what a step was based on has changed, or that the term is over.
var errOvertaken = errors.New("others came first")

func (b *bringing) commit(ctx context.Context, c *change) (bool, error) {
	c.cmps = append(c.cmps, b.fence...)
	return b.manager.commit(ctx, b.manager.Store.Urgent(), c)
}

// clear removes what collect finds, one transaction at a time, and goes on to the next step when nothing is left.
func (b *bringing) clear(ctx context.Context, app *apps.Item, collect func(*change, *apps.Item) (bare []clientv3.Op, err error)) (time.Duration, error) {
	for {
		c := &change{}
		c.add([]clientv3.Cmp{app.Unchanged()}, nil)
		bare, err := collect(c, app)
		if err != nil {
			return 0, err
		}
		if len(c.ops) == 0 {
			return 0, b.advance(ctx, app, nil)
		}
		done, err := b.commit(ctx, c)
		if errors.Is(err, errs.InsufficientStorage) {
			c.ops = bare
			done, err = b.commit(ctx, c)
		}
		if err == nil && !done {
			err = errOvertaken
		}
		if err != nil {
			return 0, err // the step is repeated from the start
		}
		fault.Point("ending.clear." + string(b.step))
	}
}

// services collects the services of the app; consumers are notified of each removal.
func (b *bringing) services(c *change, _ *apps.Item) (bare []clientv3.Op, err error) {
	for item := range b.manager.Registry.Of(b.id) {
		ops, err := b.manager.Registry.Removal(item)
		if err != nil {
			return nil, err
		}
		if !c.fits(ops...) {
			break
		}
		c.add([]clientv3.Cmp{item.Unchanged()}, ops)
		bare = append(bare, clientv3.OpDelete(item.Key))
	}
	return bare, nil
}

// subscriptions collects both kinds of subscriptions of the app.
func (b *bringing) subscriptions(c *change, _ *apps.Item) (bare []clientv3.Op, err error) {
	for item := range b.manager.Availability.Of(b.id) {
		if ops := []clientv3.Op{clientv3.OpDelete(item.Key), clientv3.OpDelete(state.CursorKey(item.Value.ID))}; c.fits(ops...) {
			c.add(nil, ops)
		}
	}
	for item := range b.manager.Termination.Of(b.id) {
		if op := clientv3.OpDelete(item.Key); c.fits(op) {
			c.add(nil, []clientv3.Op{op})
		}
	}
	return c.ops, nil
}

// credentials requests the removal of the credentials of an app that is terminated, and waits for it: removing them
// invalidates the app's tokens. They are mepauth's to remove; nobody else may write them.
func (b *bringing) credentials(ctx context.Context, app *apps.Item) (time.Duration, error) {
	m := b.manager
	if app.Value.Record.Ending.Action != mp1.ActionTerminating || !m.HasCredentials(b.id) {
		return 0, b.advance(ctx, app, nil)
	}
	if b.untilStep != "credentials" {
		value, err := state.Encode(state.Ended{Version: state.Current(), At: m.now().UTC()})
		if err != nil {
			return 0, err
		}
		c := &change{}
		c.add([]clientv3.Cmp{app.Unchanged()}, []clientv3.Op{clientv3.OpPut(state.EndedKey(b.id), value)})
		done, err := b.commit(ctx, c)
		if errors.Is(err, errs.InsufficientStorage) {
			// There is no room to request the removal, so remove them here: they must not outlive the app.
			c.ops = nil
			for item := range m.Identities.AppCredentials(b.id) {
				c.add([]clientv3.Cmp{item.Unchanged()}, []clientv3.Op{clientv3.OpDelete(item.Key)})
			}
			done, err = b.commit(ctx, c)
		}
		if err == nil && !done {
			err = errOvertaken
		}
		if err != nil {
			return 0, err
		}
		fault.Point("ending.credentials")
	}
	if wait := b.remaining("credentials", m.now().Add(m.Policy().RuleTimeout), m.Policy().RuleTimeout); wait > 0 {
		return wait, nil
	}
	return 0, b.advance(ctx, app, func(_ *change, next *state.Ending) error {
		next.Detail = strings.TrimPrefix(next.Detail+"; no mepauth removed the credentials in time, which it does when it is back", "; ")
		return nil
	})
}

// end removes what is left of an app that is terminated, or makes one STOPPED, and records the end of the operation.
func (b *bringing) end(ctx context.Context, app *apps.Item) (time.Duration, error) {
	m, rec := b.manager, app.Value.Record
	ending := rec.Ending
	c := &change{}
	if ending.Action == mp1.ActionTerminating {
		c.add([]clientv3.Cmp{app.Unchanged()}, []clientv3.Op{
			clientv3.OpDelete(app.Key), clientv3.OpDelete(state.ConfigurationKey(b.id)), clientv3.OpDelete(state.RegistrationKey(b.id)),
			clientv3.OpDelete(state.TrafficRulesKey(b.id)), clientv3.OpDelete(state.DNSRulesKey(b.id)),
		})
	} else {
		// The rules have been out of force since the first step, unless somebody interfered.
		plans, err := m.running(b.id, false)
		if err != nil {
			return 0, err
		}
		for _, p := range plans {
			c.add(p.Cmps, p.Ops)
		}
		rec.Lifecycle, rec.Ending, rec.Ready = mm5.LifecycleStopped, nil, time.Time{}
		if err := c.app(b.id, app, rec); err != nil {
			return 0, err
		}
	}
	bare := &change{cmps: c.cmps, ops: c.ops}
	if ending.Operation != "" {
		if item, err := m.Operations.Get(ending.Operation); err == nil {
			cmps, ops, err := operation.End(item, m.now(), mm5.OperationCompleted, ending.Detail, nil)
			if err != nil {
				return 0, err
			}
			c.add(cmps, ops)
		}
	}
	fault.Point("ending.end")
	done, err := b.commit(ctx, c)
	if errors.Is(err, errs.InsufficientStorage) && ending.Action == mp1.ActionTerminating {
		done, err = b.commit(ctx, bare) // the operation is ended once there is room
	}
	if err == nil && !done {
		err = errOvertaken
	}
	if err == nil {
		b.log.Info("app instance has ended", "app", b.id, "action", ending.Action)
	}
	return 0, err
}
