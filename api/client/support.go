package client

import (
	"context"
	"net/http"

	"github.com/openmep/mep/api/internal/retry"
	"github.com/openmep/mep/api/mp1"
)

// support returns a request to the application support API for a resource of the app.
func (a *App) support(method string, segments ...string) request {
	r := a.request(method, segments...)
	r.root = supportRoot
	return r
}

// ReadyOption configures App.Ready.
type ReadyOption func(*readiness)

type readiness struct{ wait bool }

// UntilConfigured makes App.Ready retry, with growing pauses, until the platform accepts the confirmation or the context ends,
// as MEC 011 5.2.2 recommends: an app may start before its manager has configured it. It also retries while the platform is
// unreachable.
func UntilConfigured() ReadyOption { return func(r *readiness) { r.wait = true } }

// Ready confirms that the app is running (MEC 011 7.2.12.3.4): its rules come into force. Confirming again has no effect.
// IsConflict holds for the error when the platform has no configuration for the app yet, or when the app was stopped or is
// about to end.
func (a *App) Ready(ctx context.Context, opts ...ReadyOption) error {
	var how readiness
	for _, opt := range opts {
		opt(&how)
	}
	r := a.support(http.MethodPost, "confirm_ready")
	r.body, r.repeatable = mp1.AppReadyConfirmation{Indication: mp1.IndicationReady}, true
	if _, err := a.c.url(&r); err != nil {
		return err // retrying does not help
	}
	for failures := 1; ; failures++ {
		_, err := a.c.do(ctx, r, nil)
		if err == nil || !how.wait || final(err) && !IsConflict(err) {
			return err
		}
		// The platform's error is more informative than an expired context.
		if !retry.Sleep(ctx, pause(err, failures, maxRetryWait)) {
			return err
		}
	}
}

// ConfirmTermination confirms that the app is ready to be stopped or terminated (MEC 011 7.2.11.3.4); action is that of the
// notification. IsConflict holds for the error when the app is neither being stopped nor terminated.
func (a *App) ConfirmTermination(ctx context.Context, action mp1.OperationAction) error {
	r := a.support(http.MethodPost, "confirm_termination")
	r.body, r.repeatable = mp1.AppTerminationConfirmation{OperationAction: action}, true
	ans, err := a.c.do(ctx, r, nil)
	if ans.attempts > 1 && (IsNotFound(err) || IsConflict(err)) {
		return nil // an earlier attempt succeeded, or the time ran out in between
	}
	return err
}

// CurrentTime reads the platform's time and whether it is traceable to UTC (MEC 011 7.2.6.3.1).
func (c *Client) CurrentTime(ctx context.Context) (mp1.CurrentTime, error) {
	var t mp1.CurrentTime
	_, err := c.do(ctx, request{method: http.MethodGet, root: supportRoot, path: []string{"timing", "current_time"}, repeatable: true}, &t)
	return t, err
}

// TimingCaps lists the time services the platform offers to apps (MEC 011 7.2.5.3.1).
func (c *Client) TimingCaps(ctx context.Context) (mp1.TimingCaps, error) {
	var caps mp1.TimingCaps
	_, err := c.do(ctx, request{method: http.MethodGet, root: supportRoot, path: []string{"timing", "timing_caps"}, repeatable: true}, &caps)
	return caps, err
}
