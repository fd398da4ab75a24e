package pki

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockWait is how long another process may hold the lock, under which it writes four small files.
const lockWait = 10 * time.Second

// lockDir keeps other processes from changing a directory until unlock is called. The kernel releases the lock when the
// process ends, however it ends.
func lockDir(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, ".lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the directory of the certificates: %w", err)
	}
	for waited := time.Duration(0); ; waited += 20 * time.Millisecond {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		busy := errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR)
		if !busy || waited >= lockWait {
			err = fmt.Errorf("%s is locked by another process: end it if it hangs: %w", path, err)
			return nil, errors.Join(err, f.Close())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// readOptional reads a file that may be missing, for which it returns nil. The error is a *Fault.
func readOptional(file string) ([]byte, error) {
	if _, err := os.Lstat(file); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	data, err := readFile(file)
	if data == nil && err == nil {
		data = []byte{}
	}
	return data, err
}
