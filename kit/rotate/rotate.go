// Package rotate appends whole lines to a file and rotates it when it is full. Other processes may append to the file and rename it, too.
package rotate

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// lookInterval is how often the path is compared with the open file, and how often a failed rotation is retried.
const lookInterval = time.Second

// Config says which file to write, and how large it may become.
type Config struct {
	// Path is the path of the file. The file and its directory are created if missing, with no access for other users. A device, a
	// pipe or a symbolic link is written to but never rotated.
	Path string
	// MaxBytes is the size, more than the longest line, at which the file becomes Path.1 and a new one begins; 0 or less leaves
	// rotation to others.
	MaxBytes int64
	// Keep is the number of old files to keep, at least 1.
	Keep int
	// Failed, if not nil, is called whenever the file could not be opened, written or rotated.
	Failed func()
}

// File appends whole lines to a path that other processes may also append to and rename. Its methods must not be called concurrently.
type File struct {
	path     string
	maxBytes int64
	keep     int
	failed   func()

	f       *os.File // nil if it must be opened
	size    int64
	torn    bool      // the last line has no newline; the next write adds it
	rotates bool      // maxBytes applies to f
	looked  time.Time // when the path was last compared with f
	stuck   error     // why the last rotation failed
	tried   time.Time // when the last rotation failed
}

// New returns a file that Open or the first Write opens.
func New(cfg Config) *File {
	if cfg.Failed == nil {
		cfg.Failed = func() {}
	}
	return &File{path: cfg.Path, maxBytes: cfg.MaxBytes, keep: max(1, cfg.Keep), failed: cfg.Failed}
}

// Path returns the path of the file.
func (o *File) Path() string { return o.path }

// Stuck returns why the last rotation failed; nil if it did not.
func (o *File) Stuck() error { return o.stuck }

// Open opens the path if it is not open. If the last line has no newline, after a crash or on a full disk, the next write adds it.
func (o *File) Open() error {
	if o.f != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(o.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(o.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	o.f, o.size, o.torn, o.rotates, o.looked = f, 0, false, false, time.Now()
	if !info.Mode().IsRegular() {
		return nil
	}
	o.size, o.torn = info.Size(), torn(f)
	// Renaming a link would not make room.
	named, err := os.Lstat(o.path)
	o.rotates = o.maxBytes > 0 && err == nil && named.Mode().IsRegular()
	return nil
}

// torn reports whether the last line has no newline: the machine crashed or the disk was full. For a moment it also looks so while
// another process writes.
func torn(f *os.File) bool {
	for range 5 {
		size, err := f.Seek(0, io.SeekEnd)
		var last [1]byte
		if n, _ := f.ReadAt(last[:], size-1); err != nil || n == 0 || last[0] == '\n' {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// Close closes the file; the next Write opens the path again.
func (o *File) Close() error {
	if o.f == nil {
		return nil
	}
	err := o.f.Close()
	o.f = nil
	return err
}

// Write appends lines, as many with each write(2) as fit into the file. It returns the number of bytes of whole lines written, less
// than len(lines) only with an error. Write notices within a second that the path has become another file.
func (o *File) Write(lines []byte) (int, error) {
	o.look()
	done := 0
	for done < len(lines) {
		if err := o.Open(); err != nil {
			o.failed()
			return done, err
		}
		n := o.fitting(lines[done:])
		if n == 0 {
			if o.rotate() {
				continue
			}
			n = len(lines) - done // better an oversized file than none
		}
		n, err := o.append(lines[done : done+n])
		done += n
		if err != nil {
			o.failed()
			_ = o.Close() // so that the next Write examines the file anew
			return done, err
		}
	}
	return done, nil
}

// fitting returns the length of the lines that fit into the file.
func (o *File) fitting(lines []byte) int {
	room := o.maxBytes - o.size - 1 // 1 for the end of a torn line
	if !o.rotates || room >= int64(len(lines)) {
		return len(lines)
	}
	return bytes.LastIndexByte(lines[:max(0, room)], '\n') + 1
}

func (o *File) append(lines []byte) (int, error) {
	if o.torn {
		if _, err := o.f.WriteString("\n"); err != nil {
			return 0, err
		}
		o.torn = false
	}
	n, err := o.f.Write(lines)
	if err != nil {
		return bytes.LastIndexByte(lines[:n], '\n') + 1, err
	}
	if o.rotates {
		// An append ends at the end of the file, whoever else wrote to it.
		o.size, err = o.f.Seek(0, io.SeekCurrent)
	}
	return n, err
}

// look closes the file if the path has become another file, or none. It checks at most once in lookInterval.
func (o *File) look() {
	if o.f == nil || time.Since(o.looked) < lookInterval {
		return
	}
	o.looked = time.Now()
	if named, err := os.Stat(o.path); err != nil || !o.is(named) {
		_ = o.Close()
	}
}

// is reports whether named is the open file.
func (o *File) is(named fs.FileInfo) bool {
	mine, err := o.f.Stat()
	return err == nil && os.SameFile(mine, named)
}

// rotate makes way for a new file and reports whether it did. It does nothing while another process rotates.
func (o *File) rotate() bool {
	if o.stuck != nil && time.Since(o.tried) < lookInterval {
		return false
	}
	// Closing the file releases the lock. On a file system without locks there is none.
	if errors.Is(syscall.Flock(int(o.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		return false
	}
	// Another process may have rotated since the path was last compared.
	if named, err := os.Lstat(o.path); err == nil && o.is(named) {
		if o.stuck = o.shift(); o.stuck != nil {
			o.tried = time.Now()
			o.failed()
			_ = syscall.Flock(int(o.f.Fd()), syscall.LOCK_UN)
			return false
		}
	}
	_ = o.Close()
	return true
}

// shift renames the file to file.1, file.1 to file.2 and so on, up to the first free number or over the oldest. It removes files
// beyond that, left from when more were kept.
func (o *File) shift() error {
	for n := o.keep + 1; o.exists(n); n++ {
		if err := os.Remove(o.numbered(n)); err != nil {
			return err
		}
	}
	free := 1
	for free < o.keep && o.exists(free) {
		free++
	}
	for n := free; n > 1; n-- {
		if err := os.Rename(o.numbered(n-1), o.numbered(n)); err != nil {
			return err
		}
	}
	return os.Rename(o.path, o.numbered(1))
}

func (o *File) exists(n int) bool {
	_, err := os.Lstat(o.numbered(n))
	return err == nil
}

func (o *File) numbered(n int) string { return o.path + "." + strconv.Itoa(n) }
