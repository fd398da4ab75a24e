// Package retry is what the clients of the platform have in common when they try again.
package retry

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// After reads both forms of a Retry-After header (RFC 9110 10.2.3); 0 when it has neither.
func After(value string) time.Duration {
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// Sleep reports false when the context ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
