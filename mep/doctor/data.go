package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/openmep/mep/mepauth"
)

// roomFactor is how many times storage.reserve should be free: below that, little time is left to make room.
const roomFactor = 4

// data examines the data directory: whom it belongs to, who else has access, and whether there is room.
func (x *examination) data(_ context.Context, f *findings) {
	dir := x.Common.DataDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.newData(f)
		return
	case err != nil:
		f.fail(dir, fmt.Sprintf("may not be looked at by user %d (%v)", x.host.uid, err), "run mep doctor as the user of the platform")
		return
	case !info.IsDir():
		f.fail(dir, "is not a directory", "set dataDir to one, or remove the file")
		return
	}
	if !x.writable(f) || !x.allOfOneUser(f, owner(info)) {
		return
	}
	x.modes(f, info)
	if f.worst() == OK {
		f.ok(dir, fmt.Sprintf("belongs to user %d, and others cannot get at its secrets", owner(info)))
	}
	x.space(f, dir)
	switch {
	case x.up.held:
		f.ok(x.LockFile, "is held by "+x.up.holder.String())
	case x.up.lockErr != nil:
		f.warn(x.LockFile, "cannot be asked whether a platform runs ("+x.up.lockErr.Error()+")", "run mep doctor as the user of the platform")
	case x.embedded():
		f.ok(x.LockFile, "is held by nobody: no platform uses the directory")
	}
	if file := mepauth.BootstrapFile(x.Common); exists(file) {
		f.note(file, "has the first credential of the MEC platform manager")
	}
}

// newData examines the place where the data directory will be.
func (x *examination) newData(f *findings) {
	dir, above := x.Common.DataDir, ancestor(x.Common.DataDir)
	if err := x.host.access(above, unix.W_OK|unix.X_OK); err != nil {
		f.fail(dir, fmt.Sprintf("does not exist, and user %d may not make it in %s (%v)", x.host.uid, above, err),
			"make it, for the user of the platform alone (mode 0700), or set dataDir to another directory")
		return
	}
	f.note(dir, "does not exist yet: mep run makes it")
	x.space(f, above)
}

// ancestor returns the nearest existing directory above a path.
func ancestor(path string) string {
	for {
		above := filepath.Dir(path)
		if above == path || exists(above) {
			return above
		}
		path = above
	}
}

// writable reports whether this user may use the data directory.
func (x *examination) writable(f *findings) bool {
	dir := x.Common.DataDir
	if at, err := x.host.room(dir); err == nil && at.readOnly {
		f.fail(dir, "is on a file system that is mounted read-only", "mount it for writing, or set dataDir to another directory; dmesg says whether the kernel did it after an error of the disk")
		return false
	}
	if err := x.host.access(dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		f.fail(dir, fmt.Sprintf("may not be used by user %d (%v)", x.host.uid, err),
			"run mep doctor as the user of the platform, or give the directory to this one with chown -R")
		return false
	}
	return true
}

// allOfOneUser looks for files that another user left there, such as a command run as root.
func (x *examination) allOfOneUser(f *findings, directory int) bool {
	user := directory
	if x.up.holder.pid != 0 {
		if uid, err := x.host.owner(x.up.holder.pid); err == nil {
			user = uid
		}
	} else if x.host.uid != 0 {
		user = x.host.uid
	}
	if user == 0 {
		return true // root has access to everything
	}
	var foreign []string
	for _, name := range []string{
		"lock", "etcd", "etcd/member", "etcd/member/snap/db", "etcd/member/wal", "auth", "auth/seal.key", "audit", "audit/audit.log",
		"pki", "pki/ca.key", "pki/server.key", "bootstrap", "bootstrap/mepm.json", "snapshots",
	} {
		if info, err := os.Lstat(x.within(name)); err == nil && owner(info) != user {
			foreign = append(foreign, name)
		}
	}
	if len(foreign) == 0 {
		return true
	}
	f.fail(x.Common.DataDir, fmt.Sprintf("has %s of another user than %d, whom the platform runs as", strings.Join(foreign, ", "), user),
		fmt.Sprintf("chown -R %d %s, and run mep's commands as that user", user, x.Common.DataDir))
	return false
}

// modes looks for files that other users could read or change. Another check examines the keys of certificates.
func (x *examination) modes(f *findings, dir fs.FileInfo) {
	if dir.Mode().Perm()&0o002 != 0 {
		f.fail(x.Common.DataDir, "can be changed by every user of this machine", "chmod o-w "+x.Common.DataDir)
	}
	for _, file := range []string{x.Auth.SealFile(x.Common), mepauth.BootstrapFile(x.Common)} {
		// A group may read it, which is how Kubernetes gives secrets to a process that is not root.
		if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o027 != 0 {
			f.fail(file, fmt.Sprintf("has the permissions %04o, so that other users have access to a secret", info.Mode().Perm()),
				"chmod 600 "+file+", and think of the secret as known if others use this machine")
		}
	}
	for _, name := range []string{"etcd", "sockets", "auth", "bootstrap", "audit", "snapshots"} {
		if info, err := os.Stat(x.within(name)); err == nil && info.Mode().Perm()&0o007 != 0 {
			f.warn(x.within(name), fmt.Sprintf("has the permissions %04o, so that other users may look into it", info.Mode().Perm()),
				"chmod 700 "+x.within(name))
		}
	}
}

// space checks the room on the file system of a directory.
func (x *examination) space(f *findings, dir string) {
	at, err := x.host.room(dir)
	free, reserve := at.free>>20, x.Reserve>>20
	switch {
	case err != nil:
		f.warn(dir, "does not tell how much room its file system has ("+err.Error()+")", "see whether the file system is in order")
	case at.free == 0:
		f.fail(dir, "is on a file system that is full", "make room there")
	case !x.embedded():
		f.ok(dir, fmt.Sprintf("has %d MiB free on its file system", free))
	case at.free < x.Reserve:
		f.fail(dir, fmt.Sprintf("has %d MiB free on its file system, less than storage.reserve (%d MiB): changes are refused", free, reserve),
			"make room there, or move the data directory to a larger file system")
	case at.free < roomFactor*x.Reserve:
		f.warn(dir, fmt.Sprintf("has %d MiB free on its file system; below storage.reserve (%d MiB) changes are refused", free, reserve),
			"make room there")
	default:
		f.ok(dir, fmt.Sprintf("has %d MiB free on its file system; below storage.reserve (%d MiB) changes are refused", free, reserve))
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// owner returns the user that a file belongs to.
func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return 0
}
