package netguard

import (
	"context"
	"net"
	"syscall"
	"time"
)

// Dialer returns a dialer that obeys policy, which it calls for every address it dials, after name resolution. The error of a
// refused connection wraps a *RefusedError. A nil policy, or one that returns nil, refuses nothing. timeout bounds a dial; if
// it is 0, only the context of the dial does.
func Dialer(policy func() *Policy, timeout time.Duration) *net.Dialer {
	d := &net.Dialer{Timeout: timeout}
	if policy != nil {
		d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			return checkDial(policy(), address)
		}
	}
	return d
}
