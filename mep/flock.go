package mep

import (
	"os"
	"syscall"
)

// flock takes the lock of a file without waiting. The kernel releases it when the process ends, however it ends.
func flock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
