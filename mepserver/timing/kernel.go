package timing

import (
	"fmt"
	"time"
)

// kernelInterval is how often the kernel is asked. It is a system call.
const kernelInterval = 4 * time.Second

// maxKernelError is the largest error the kernel may reckon with while its clock counts as traceable. The kernel lets it grow by
// 500 ppm from one correction to the next; systemd-timesyncd, which has the longest intervals of those in use, makes one
// every 34 minutes, and 1.03 s of them. The kernel itself gives up at 16 s.
const maxKernelError = 2 * time.Second

// discipline is what the kernel says of its clock (adjtimex(2)).
type discipline struct {
	// failed is the state TIME_ERROR, unsynchronized the status bit STA_UNSYNC.
	failed, unsynchronized bool
	// maxError is the largest error reckoned with, offset what is still to be corrected.
	maxError, offset time.Duration
}

// fault says why the clock is not traceable by what the kernel says, "" when it is.
func (d *discipline) fault() string {
	switch {
	case d.failed, d.unsynchronized:
		return "no time service keeps the kernel's clock synchronised"
	case d.maxError >= maxKernelError:
		return fmt.Sprintf("the kernel's clock may be off by %s, and less than %s is asked for", d.maxError, maxKernelError)
	}
	return ""
}
