//go:build faults

package fault

import (
	"os"
	"syscall"
)

// Point kills the process if MEP_FAULT holds its name.
func Point(name string) {
	if os.Getenv("MEP_FAULT") == name {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
