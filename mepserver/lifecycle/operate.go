package lifecycle

import (
	"context"
	"fmt"
	"math"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/fault"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/operation"
	"github.com/openmep/mep/mepserver/rules"
)

// running returns the plans that put the rules of an app instance in force, or out of force.
func (m *Manager) running(appInstanceID string, running bool) (map[mm5.RuleKind]*rules.Plan, error) {
	traffic, err := m.Traffic.Run(appInstanceID, running)
	if err != nil {
		return nil, err
	}
	dns, err := m.DNS.Run(appInstanceID, running)
	if err != nil {
		return nil, err
	}
	return map[mm5.RuleKind]*rules.Plan{mm5.TrafficRules: traffic, mm5.DNSRules: dns}, nil
}

// Start records that an app instance runs and puts its rules in force. It returns the id of the operation. Errors are of the
// kinds errs.NotFound, errs.Conflict (there is no configuration, or the instance is being stopped or terminated) and those of
// etcd.Store.Txn.
func (m *Manager) Start(ctx context.Context, appInstanceID string) (string, error) {
	unlock, err := m.locks.Lock(ctx, appInstanceID)
	if err != nil {
		return "", err
	}
	defer unlock()
	fingerprint := operation.Fingerprint(mm5.OperationStart, nil)
	for range maxTries {
		app, err := m.find(appInstanceID)
		if err != nil {
			return "", err
		}
		rec := app.Value.Record
		switch s := rec.State(); s {
		case mm5.LifecycleKnown:
			return "", errs.New(errs.Conflict, "application instance %s has no configuration: configure it first", appInstanceID)
		case mm5.LifecycleStopping, mm5.LifecycleTerminating:
			return "", errs.New(errs.Conflict, "application instance %s is %s: start it when that is over", appInstanceID, s).After(time.Second)
		case mm5.LifecycleStarted:
			if same := m.repeated(appInstanceID, mm5.OperationStart, fingerprint); same != "" {
				if done, err := m.holds(ctx, []clientv3.Cmp{app.Unchanged()}); err != nil || done {
					return same, err
				}
				continue
			}
		}
		c, id := &change{}, operation.NewID()
		overtakes := rec.Lifecycle != mm5.LifecycleStarted
		if overtakes {
			rec.Lifecycle, rec.Operation = mm5.LifecycleStarted, id
		}
		plans, err := m.start(c, app, rec)
		if err != nil {
			return "", err
		}
		err = m.begin(ctx, c, id, state.Operation{AppInstanceID: appInstanceID, Type: mm5.OperationStart, Request: fingerprint}, overtakes, plans)
		if err != nil {
			return "", err
		}
		if done, err := m.commit(ctx, m.Store, c); err != nil || done {
			return id, err
		}
	}
	return "", errContended(appInstanceID)
}

// start adds the writes that make an app instance STARTED.
func (m *Manager) start(c *change, app *apps.Item, rec state.App) (map[mm5.RuleKind]*rules.Plan, error) {
	plans, err := m.running(app.Value.ID, true)
	if err != nil {
		return nil, err
	}
	for _, p := range plans {
		c.add(p.Cmps, p.Ops)
	}
	return plans, c.app(app.Value.ID, app, rec)
}

// Ready records that an app reports that it runs (MEC 011 7.2.12) and puts its rules in force. Errors are of the kinds
// errs.NotFound, errs.Conflict (there is no configuration yet, or the instance is stopped or ending) and those of
// etcd.Store.Txn.
func (m *Manager) Ready(ctx context.Context, appInstanceID string) error {
	unlock, err := m.locks.Lock(ctx, appInstanceID)
	if err != nil {
		return err
	}
	defer unlock()
	for range maxTries {
		if err := m.Apps.Exists(appInstanceID); err != nil {
			return err
		}
		app, ok := m.Apps.Get(appInstanceID)
		if !ok || app.Value.Record.State() == mm5.LifecycleKnown {
			return errs.New(errs.Conflict, "the MEC platform manager has not configured application instance %s yet: try again later", appInstanceID).
				After(time.Second)
		}
		rec := app.Value.Record
		switch s := rec.State(); s {
		case mm5.LifecycleStopping, mm5.LifecycleTerminating:
			return errs.New(errs.Conflict, "application instance %s is %s", appInstanceID, s)
		case mm5.LifecycleStopped:
			return errs.New(errs.Conflict, "application instance %s was stopped by the MEC platform manager, which has to start it again", appInstanceID)
		case mm5.LifecycleStarted:
			if !rec.Ready.IsZero() {
				if done, err := m.holds(ctx, []clientv3.Cmp{app.Unchanged()}); err != nil || done {
					return err
				}
				continue
			}
		}
		rec.Lifecycle, rec.Ready = mm5.LifecycleStarted, m.now().UTC()
		c := &change{}
		if _, err := m.start(c, app, rec); err != nil {
			return err
		}
		if done, err := m.commit(ctx, m.Store, c); err != nil || done {
			return err
		}
	}
	return errContended(appInstanceID)
}

// Grace says how an app instance is stopped or terminated.
type Grace struct {
	// Graceful means that the app is notified and waited for.
	Graceful bool
	// Timeout is how long to wait, 0 for the platform's default.
	Timeout time.Duration
}

// Stop begins to stop an app instance, which keeps its configuration, and returns the id of the operation. Errors are as for
// Start.
func (m *Manager) Stop(ctx context.Context, appInstanceID string, grace Grace) (string, error) {
	return m.end(ctx, appInstanceID, mp1.ActionStopping, grace, false)
}

// Terminate begins to terminate an app instance and returns the id of the operation. Terminating an instance again is not an
// error as long as the operation is kept. A FORCEFUL termination ends the wait of a GRACEFUL one. Errors are of the kind
// errs.NotFound and those of etcd.Store.Txn.
func (m *Manager) Terminate(ctx context.Context, appInstanceID string, grace Grace, edgeGallery bool) (string, error) {
	return m.end(ctx, appInstanceID, mp1.ActionTerminating, grace, edgeGallery)
}

func (m *Manager) end(ctx context.Context, appInstanceID string, action mp1.OperationAction, grace Grace, edgeGallery bool) (string, error) {
	unlock, err := m.locks.Lock(ctx, appInstanceID)
	if err != nil {
		return "", err
	}
	defer unlock()
	for range maxTries {
		app, ok := m.Apps.Get(appInstanceID)
		if !ok {
			if id := m.last(appInstanceID, mm5.OperationTerminate); id != "" && action == mp1.ActionTerminating {
				if done, err := m.holds(ctx, []clientv3.Cmp{same[*apps.App](state.AppKey(appInstanceID), nil)}); err != nil || done {
					return id, err
				}
				continue
			}
			_, err := m.find(appInstanceID)
			if absent, herr := m.holds(ctx, []clientv3.Cmp{same[*apps.App](state.AppKey(appInstanceID), nil)}); herr == nil && !absent {
				continue // another process has created it meanwhile
			}
			return "", err
		}
		rec := app.Value.Record
		if id, over, err := m.already(&rec, appInstanceID, action, grace); err != nil {
			return "", err
		} else if over {
			if done, err := m.holds(ctx, []clientv3.Cmp{app.Unchanged()}); err != nil || done {
				return id, err
			}
			continue
		}
		c := &change{}
		id, err := m.ending(ctx, c, app, action, grace, edgeGallery)
		if err != nil {
			return "", err
		}
		// Ending an app must be possible even when there is hardly any room left: it frees space.
		done, err := m.commit(ctx, m.Store.Urgent(), c)
		if err != nil {
			return "", err
		}
		if done {
			fault.Point("ending.stored")
			return id, nil
		}
	}
	return "", errContended(appInstanceID)
}

// last returns the id of the last operation of an app instance if it is of the given type: a client that repeats a request
// has lost the response. The id is empty if the operation is of another type or no longer known.
func (m *Manager) last(appInstanceID string, of mm5.OperationType) string {
	if list := m.Operations.Of(appInstanceID); len(list) > 0 && list[0].Value.Record.Type == of {
		return list[0].Value.ID
	}
	return ""
}

// already reports whether the requested action is under way or done, and by which operation.
func (m *Manager) already(rec *state.App, appInstanceID string, action mp1.OperationAction, grace Grace) (id string, over bool, err error) {
	s := rec.State()
	switch {
	case s == mm5.LifecycleTerminating && action == mp1.ActionStopping:
		return "", false, errs.New(errs.Conflict, "application instance %s is TERMINATING", appInstanceID)
	case s == mm5.LifecycleKnown && action == mp1.ActionStopping:
		return "", false, errs.New(errs.Conflict, "application instance %s has no configuration: there is nothing to stop", appInstanceID)
	case s == mm5.LifecycleStopped && action == mp1.ActionStopping:
		if id := m.repeated(appInstanceID, mm5.OperationStop, operation.Fingerprint(mm5.OperationStop, nil)); id != "" {
			return id, true, nil
		}
	case rec.Ending != nil && rec.Ending.Action == action && rec.Ending.Operation != "":
		// A repeated request, unless it asks to end the wait.
		hurry := !grace.Graceful && rec.Ending.Timeout > 0 && rec.Ending.Step == state.StepNotice
		return rec.Ending.Operation, !hurry, nil
	}
	return "", false, nil
}

// ending adds the writes that begin the end of an app instance, or that hurry the end under way, and returns the operation's
// id.
func (m *Manager) ending(ctx context.Context, c *change, app *apps.Item, action mp1.OperationAction, grace Grace, edgeGallery bool) (string, error) {
	now := m.now().UTC()
	rec := app.Value.Record
	kind, lifecycle := mm5.OperationStop, mm5.LifecycleStopping
	if action == mp1.ActionTerminating {
		kind, lifecycle = mm5.OperationTerminate, mm5.LifecycleTerminating
	}
	if rec.State() == mm5.LifecycleStopped && action == mp1.ActionStopping {
		// There is nothing to do, and nobody to notify.
		id := operation.NewID()
		c.cmps = append(c.cmps, app.Unchanged())
		return id, m.begin(ctx, c, id, state.Operation{
			AppInstanceID: app.Value.ID, Type: kind, Request: operation.Fingerprint(kind, nil),
		}, false, map[mm5.RuleKind]*rules.Plan{})
	}
	if e := rec.Ending; e != nil && e.Action == action && e.Operation != "" {
		hurried := *e
		hurried.Deadline, hurried.Timeout = now, 0
		rec.Ending = &hurried
		return e.Operation, c.app(app.Value.ID, app, rec)
	}
	id := operation.NewID()
	e := &state.Ending{Action: action, Operation: id, Deadline: now, Step: state.StepNotice}
	if grace.Graceful && rec.State() != mm5.LifecycleStopped {
		timeout := grace.Timeout
		if timeout <= 0 {
			timeout = m.Policy().GracefulTimeout
		}
		e.Timeout = uint32(min(math.MaxUint32, max(1, math.Ceil(timeout.Seconds()))))
		e.Deadline = now.Add(time.Duration(e.Timeout) * time.Second)
	}
	if rec.Ending != nil && rec.Ending.Step != state.StepNotice {
		// The stop under way is past the point of notifying the app.
		e.Step, e.RulesUntil, e.Timeout, e.Deadline = rec.Ending.Step, rec.Ending.RulesUntil, 0, now
		if order(e.Step) > order(state.StepCredentials) {
			e.Step = state.StepCredentials // which a stop leaves alone
		}
	}
	rec.Lifecycle, rec.Operation, rec.Ending = lifecycle, id, e
	if err := c.app(app.Value.ID, app, rec); err != nil {
		return "", err
	}
	return id, m.begin(ctx, c, id, state.Operation{
		AppInstanceID: app.Value.ID, Type: kind, EdgeGallery: edgeGallery, Request: operation.Fingerprint(kind, nil),
	}, true, nil)
}

// Confirm records that an app is ready to be stopped or terminated (MEC 011 7.2.11). Errors are of the kinds errs.NotFound,
// errs.Conflict (the app is neither being stopped nor terminated), errs.Invalid (the other of the two is under way) and those
// of etcd.Store.Txn.
func (m *Manager) Confirm(ctx context.Context, appInstanceID string, action mp1.OperationAction) error {
	for range maxTries {
		if err := m.Apps.Exists(appInstanceID); err != nil {
			return err
		}
		app, ok := m.Apps.Get(appInstanceID)
		if !ok || app.Value.Record.Ending == nil {
			return errs.New(errs.Conflict, "application instance %s is neither being stopped nor terminated", appInstanceID)
		}
		rec := app.Value.Record
		if rec.Ending.Action != action {
			return errs.New(errs.Invalid, "operationAction must be %s, as in the notification, not %s", rec.Ending.Action, action)
		}
		if !rec.Ending.Confirmed.IsZero() || rec.Ending.Step != state.StepNotice {
			if done, err := m.holds(ctx, []clientv3.Cmp{app.Unchanged()}); err != nil || done {
				return err
			}
			continue
		}
		e := *rec.Ending
		e.Confirmed = m.now().UTC()
		rec.Ending = &e
		c := &change{}
		if err := c.app(appInstanceID, app, rec); err != nil {
			return err
		}
		if done, err := m.commit(ctx, m.Store.Urgent(), c); err != nil || done {
			return err
		}
	}
	return errContended(appInstanceID)
}

// describe returns a description of an ending, for the log and the details of the operation.
func describe(e *state.Ending) string {
	switch {
	case !e.Confirmed.IsZero():
		return "the app confirmed"
	case e.Timeout == 0:
		return "the app is not waited for"
	}
	return fmt.Sprintf("the app did not confirm within %d s", e.Timeout)
}
