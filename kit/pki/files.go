package pki

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockWait is how long another process may hold the lock. It writes four small files.
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

// replaceFile gives a file new contents so that whoever reads it, and whoever reads it after a crash, finds the old
// contents or the new, never a part. The caller holds the lock of the directory.
func replaceFile(path string, data []byte, mode os.FileMode) (err error) {
	// Of a process that was killed; under the lock nobody else is writing it.
	temporary := path + ".tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary)
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		// Not left to the umask: clients must be able to read a CA.
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(temporary, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename outlast a power failure, and come before those that follow it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readOptional reads a file that may be missing; it returns nil then. The error is a *Fault.
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
