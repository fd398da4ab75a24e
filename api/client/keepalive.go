package client

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/openmep/mep/api/internal/retry"
)

// minBeatTimeout is the shortest time-out of a heartbeat.
const minBeatTimeout = 2 * time.Second

// KeepAlive sends heartbeats for a service until ctx ends, and then returns nil. The first heartbeat is sent immediately, the
// others slightly more often than the platform requires. The service must have been registered with a LivenessInterval.
//
// KeepAlive continues while the platform is unreachable or returns temporary errors. It returns the platform's error when
// continuing is pointless: IsNotFound holds for the error when the service is gone or the platform expects no heartbeats for
// it, IsConflict when the app itself has made the service INACTIVE.
func (a *App) KeepAlive(ctx context.Context, id string) error {
	var interval time.Duration
	failures := 0
	for {
		next, err := a.beat(ctx, id, interval)
		if ctx.Err() != nil {
			return nil
		}
		var wait time.Duration
		switch {
		case err == nil:
			interval, failures = next, 0
			wait = between(interval*8/10, interval)
		case final(err):
			return err
		default:
			failures++
			wait = pause(err, failures, max(interval, time.Second))
		}
		if !retry.Sleep(ctx, wait) {
			return nil
		}
	}
}

// beat sends one heartbeat and returns the interval that applies afterwards. interval is 0 when it is not yet known.
func (a *App) beat(ctx context.Context, id string, interval time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, max(interval, minBeatTimeout))
	defer cancel()
	if interval == 0 {
		info, err := a.Liveness(ctx, id)
		if err != nil {
			return 0, err
		}
		interval = max(seconds(info.Interval), time.Second)
	}
	imposed, err := a.Heartbeat(ctx, id)
	if err != nil {
		return 0, err
	}
	if imposed > 0 {
		interval = imposed
	}
	return interval, nil
}

// final reports whether err is a permanent refusal. A token may become valid again, so 401 is not final.
func final(err error) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	switch e.Status() {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return e.Status() >= 400 && e.Status() <= 499
}

// pause returns the wait after a failure: at least a backoff of up to limit, and longer if the platform asks for it, within
// bounds.
func pause(err error, failures int, limit time.Duration) time.Duration {
	wait := backoff(failures, limit)
	if e, ok := errors.AsType[*Error](err); ok {
		wait = max(wait, min(e.RetryAfter, max(limit, maxRetryWait)))
	}
	return wait
}
