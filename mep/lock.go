package mep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dirLock is the lock of a data directory that this process uses.
type dirLock struct{ file *os.File }

// errInUse means that another process uses a data directory.
var errInUse = errors.New("is in use by another process")

func lockFile(dir string) string { return filepath.Join(dir, "lock") }

// lock ensures that only one process at a time uses a data directory.
func lock(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // others may pass through to the certificate of the CA
		return nil, fmt.Errorf("data directory: %w", err)
	}
	f, err := os.OpenFile(lockFile(dir), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := flock(f); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errInUse
		}
		return nil, errors.Join(fmt.Errorf("data directory %s %w", dir, err), f.Close())
	}
	return &dirLock{f}, nil
}

// note writes the address of the database to the lock file, for commands used while the platform runs.
func (l *dirLock) note(address string) error {
	err := l.file.Truncate(0)
	if err == nil {
		_, err = l.file.WriteAt([]byte(address+"\n"), 0)
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// Close lets others use the directory.
func (l *dirLock) Close() error { return l.file.Close() }

// noted returns the address that another process left in the lock file of a data directory; empty if there is none.
func noted(dir string) (string, error) {
	text, err := os.ReadFile(lockFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}
