package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// filesBeside is how many files a process has open besides the connections of Mp1: calls to subscribers, tokens, operations, the
// database.
const filesBeside = 4096

// limits examines what the machine lets the platform use.
func (x *examination) limits(_ context.Context, f *findings) {
	x.openFiles(f)
	x.audit(f)
}

func (x *examination) openFiles(f *findings) {
	whose := "a process that is started like this one"
	allowed, err := x.host.files(0)
	if pid := x.up.holder.pid; pid != 0 {
		// Only its own user and root may ask; failing that, the limit of this process has to do.
		if its, perr := x.host.files(pid); perr == nil {
			whose, allowed, err = "the running platform", its, nil
		}
	}
	if err != nil {
		f.note("open files", "cannot be counted ("+err.Error()+")")
		return
	}
	wanted, because, lower := x.filesWanted()
	if allowed >= wanted {
		f.ok("open files", fmt.Sprintf("may be %d for %s; %s %d", allowed, whose, because, wanted))
		return
	}
	f.warn("open files", fmt.Sprintf("may only be %d for %s; %s %d", allowed, whose, because, wanted),
		fmt.Sprintf("LimitNOFILE=%d in the systemd unit, ulimit -n %d before the start, or a lower %s", wanted, wanted, lower))
}

// filesWanted returns how many files may be open at most, which settings cause it, and which would have to be lower.
func (x *examination) filesWanted() (wanted uint64, because, lower string) {
	files := x.Server.MaxConnections + filesBeside
	because, lower = fmt.Sprintf("limits.connections (%d) needs", x.Server.MaxConnections), "limits.connections"
	if x.Gateway != nil && x.Gateway.Enabled() {
		files += 2 * x.Gateway.ConnectionsHard // a call that is passed on has a second connection
		because = fmt.Sprintf("limits.connections (%d) and gateway.connectionsHard (%d) need", x.Server.MaxConnections, x.Gateway.ConnectionsHard)
		lower += " or gateway.connectionsHard"
	}
	return uint64(files), because, lower //nolint:gosec // the settings are at least 1
}

// audit checks that the audit stream can be written.
func (x *examination) audit(f *findings) {
	file := x.Common.AuditPath()
	if x.Common.AuditFile == "" && x.host.access(x.Common.DataDir, unix.W_OK|unix.X_OK) != nil {
		return // reported by the check of the data directory
	}
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		dir := ancestor(file)
		if err := x.host.access(dir, unix.W_OK|unix.X_OK); err != nil {
			f.fail(file, fmt.Sprintf("does not exist, and user %d may not make it in %s (%v)", x.host.uid, dir, err),
				"set audit.file to a place the platform may write to, or change the permissions")
			return
		}
		f.ok(file, "does not exist yet, and can be made")
	case err != nil:
		f.fail(file, fmt.Sprintf("may not be looked at by user %d (%v)", x.host.uid, err), "run mep doctor as the user of the platform, or set audit.file to another place")
	case info.IsDir():
		f.fail(file, "is a directory", "set audit.file to a file")
	default:
		if err := x.host.access(file, unix.W_OK); err != nil {
			f.fail(file, fmt.Sprintf("may not be written by user %d (%v)", x.host.uid, err), "change its owner or its permissions, or set audit.file to another place")
			return
		}
		f.ok(file, "can be written")
	}
}
