package timing

import (
	"fmt"
	"time"
)

// kernelInterval is the interval between reads of the kernel's clock state, each of which is a system call.
const kernelInterval = 4 * time.Second

// maxKernelError is the estimated error at which the kernel's clock stops counting as traceable. The kernel lets the
// estimate grow by 500 ppm from one correction to the next: to 1.03 s with systemd-timesyncd, whose corrections, every
// 34 minutes, are the rarest in use. The kernel itself gives up at 16 s.
const maxKernelError = 2 * time.Second

// discipline is the state of the kernel's clock (adjtimex(2)).
type discipline struct {
	// failed is true in the state TIME_ERROR, unsynchronized if the status bit STA_UNSYNC is set.
	failed, unsynchronized bool
	// maxError is the kernel's estimate of the largest error, offset the correction still to be made.
	maxError, offset time.Duration
}

// fault returns why the clock is not traceable according to the kernel, "" if it is.
func (d *discipline) fault() string {
	switch {
	case d.failed, d.unsynchronized:
		return "no time service keeps the kernel's clock synchronised"
	case d.maxError >= maxKernelError:
		return fmt.Sprintf("the kernel's clock may be off by %s, and less than %s is asked for", d.maxError, maxKernelError)
	}
	return ""
}
