package netguard

import (
	"context"
	"net"
	"syscall"
	"time"
)

// Dialer makes a dialer that obeys policy, which is asked for every address it dials, after names were resolved. The error of a
// connection that is refused wraps a *RefusedError. A nil policy, or a nil answer, refuses nothing. timeout bounds a dial; 0:
// only its context does.
func Dialer(policy func() *Policy, timeout time.Duration) *net.Dialer {
	d := &net.Dialer{Timeout: timeout}
	if policy != nil {
		d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			return checkDial(policy(), address)
		}
	}
	return d
}
