// Package durable writes files that survive a crash or a loss of power, whole or not at all.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace replaces the contents of a file. Readers, also those after a crash, find the old contents or the new, never a part.
// Nobody else may replace the same file at the same time.
func Replace(path string, data []byte, mode os.FileMode) (err error) {
	// Left over from a process that was killed: nobody else is writing it.
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
		// The umask does not apply.
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
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes a rename survive a power failure, and precede later ones.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
