package timing

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// readKernel reads the state of the kernel's clock. It needs no privileges.
func readKernel() (discipline, error) {
	var t unix.Timex // Modes is 0: nothing is changed
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return discipline{}, fmt.Errorf("adjtimex: %w", err)
	}
	unit := time.Microsecond
	if t.Status&unix.STA_NANO != 0 {
		unit = time.Nanosecond
	}
	return discipline{
		failed: state == unix.TIME_ERROR, unsynchronized: t.Status&unix.STA_UNSYNC != 0,
		maxError: time.Duration(t.Maxerror) * time.Microsecond, offset: time.Duration(t.Offset) * unit,
	}, nil
}
