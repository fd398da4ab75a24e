package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/openmep/mep/api/internal/retry"
	"github.com/openmep/mep/api/mm5"
)

// maxPoll is the longest interval between two polls of the state of an operation.
const maxPoll = 2 * time.Second

// OperationError reports that an operation failed.
type OperationError struct {
	// Operation is the failed operation; its RuleResults name the rules that were refused.
	Operation *mm5.AppLcmOpOcc
}

// Error names the operation and the reason for its failure.
func (e *OperationError) Error() string {
	return fmt.Sprintf("operation %s (%s of %s) failed: %s",
		e.Operation.ID, e.Operation.LcmOperation, e.Operation.AppInstanceID, e.Operation.Detail)
}

// Operation reads the state of an operation. IsNotFound holds for the error when there is no such operation, or when it ended
// so long ago that the platform no longer keeps it.
func (m *Manager) Operation(ctx context.Context, id string) (*mm5.AppLcmOpOcc, error) {
	op := &mm5.AppLcmOpOcc{}
	if _, err := m.c.do(ctx, m.request(http.MethodGet, "app_lcm_op_occs", id), op); err != nil {
		return nil, err
	}
	return op, nil
}

// Operations lists the operations on an application instance that the platform keeps, newest first. An empty appInstanceID
// selects those on all instances.
func (m *Manager) Operations(ctx context.Context, appInstanceID string) ([]mm5.AppLcmOpOcc, error) {
	r := m.request(http.MethodGet, "app_lcm_op_occs")
	if appInstanceID != "" {
		r.query = url.Values{"app_instance_id": {appInstanceID}}
	}
	var list []mm5.AppLcmOpOcc
	_, err := m.c.do(ctx, r, &list)
	return list, err
}

// WaitOperation waits until an operation has ended and returns its last known state. It continues polling while the platform is
// unreachable or returns temporary errors. The error is an *OperationError when the operation failed, wraps ctx.Err when ctx
// ends first, and is the platform's error when polling on is pointless.
func (m *Manager) WaitOperation(ctx context.Context, id string) (*mm5.AppLcmOpOcc, error) {
	r := m.request(http.MethodGet, "app_lcm_op_occs", id)
	if _, err := m.c.url(&r); err != nil {
		return nil, err // retrying does not help
	}
	var seen *mm5.AppLcmOpOcc
	failures := 0
	for asked := 1; ; asked++ {
		wait := backoff(asked, maxPoll)
		op, err := m.Operation(ctx, id)
		switch {
		case err == nil && op.OperationState == mm5.OperationFailed:
			return op, &OperationError{Operation: op}
		case err == nil && op.OperationState.Done():
			return op, nil
		case err == nil:
			seen, failures = op, 0
		case final(err):
			return seen, err
		default:
			failures++
			wait = pause(err, failures, maxRetryWait)
		}
		if retry.Sleep(ctx, wait) {
			continue
		}
		if err == nil {
			return seen, fmt.Errorf("operation %s has not ended: %w", id, ctx.Err())
		}
		return seen, fmt.Errorf("operation %s: %w: %w", id, ctx.Err(), err)
	}
}
