package doctor

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// host provides what the checks ask of the machine, so that tests can answer instead.
type host struct {
	now func() time.Time
	// uid is the user the examination runs as.
	uid int
	// clock reports whether something keeps the machine's clock synchronised.
	clock func() (synchronised bool, err error)
	// built is the time of the commit the program was built from, if known.
	built time.Time
	// room describes the file system of a directory.
	room func(dir string) (room, error)
	// access checks whether this user may use a file; mode is unix.R_OK and the like.
	access func(path string, mode uint32) error
	listen func(ctx context.Context, addr string) (net.Listener, error)
	// packets does for UDP what listen does for TCP.
	packets func(ctx context.Context, addr string) (net.PacketConn, error)
	// listener returns the process that listens on a TCP port, as far as this user may know.
	listener func(port int) process
	// files returns how many files a process may have open; pid 0 is this process.
	files func(pid int) (uint64, error)
	// owner returns the user that a process runs as.
	owner func(pid int) (int, error)
}

// room describes the space on a file system.
type room struct {
	free     int64 // bytes, for users other than root
	readOnly bool
}

// process is a process on this machine; the zero value is an unknown one.
type process struct {
	pid  int
	name string
}

// String returns the process in words for a sentence.
func (p process) String() string {
	switch {
	case p.pid == 0:
		return "another process"
	case p.name == "":
		return fmt.Sprintf("process %d", p.pid)
	}
	return fmt.Sprintf("process %d (%s)", p.pid, p.name)
}

func thisMachine() host {
	return host{
		now: time.Now, uid: os.Geteuid(), clock: kernelClock, built: buildTime(), room: fileSystem,
		access: func(path string, mode uint32) error {
			return unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
		},
		listen: func(ctx context.Context, addr string) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		},
		packets: func(ctx context.Context, addr string) (net.PacketConn, error) {
			return (&net.ListenConfig{}).ListenPacket(ctx, "udp", addr)
		},
		listener: whoListens, files: openFiles, owner: processOwner,
	}
}

// kernelClock asks the kernel; with no modes set, adjtimex changes nothing.
func kernelClock() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, err
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, nil
}

// buildTime returns the time of the commit the program was built from.
func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

func fileSystem(dir string) (room, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return room{}, err
	}
	//nolint:gosec // no file system has 2^63 bytes
	return room{free: int64(st.Bavail) * st.Bsize, readOnly: st.Flags&unix.ST_RDONLY != 0}, nil
}

// openFiles returns the limit of a process. For this process it is the hard limit, to which a Go program raises its own at the start.
func openFiles(pid int) (uint64, error) {
	which := unix.Rlimit{}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &which); err != nil {
		return 0, err
	}
	if pid == 0 {
		return which.Max, nil
	}
	return which.Cur, nil
}

func processOwner(pid int) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join("/proc", strconv.Itoa(pid)), &st); err != nil {
		return 0, err
	}
	return int(st.Uid), nil
}

func processName(pid int) string {
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// whoListens finds the process by its open sockets, which only its user and root may see.
func whoListens(port int) process {
	var sockets []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if text, err := os.ReadFile(table); err == nil {
			sockets = append(sockets, listening(text, port)...)
		}
	}
	if len(sockets) == 0 {
		return process{}
	}
	wanted := make(map[string]bool, len(sockets))
	for _, inode := range sockets {
		wanted["socket:["+inode+"]"] = true
	}
	files, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return process{}
	}
	for _, file := range files {
		if target, err := os.Readlink(file); err != nil || !wanted[target] {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err == nil {
			return process{pid: pid, name: processName(pid)}
		}
	}
	return process{}
}

// listening returns the inodes of the sockets that listen on a port, from /proc/net/tcp or tcp6 (proc_net_tcp in the Linux documentation).
func listening(table []byte, port int) []string {
	const (
		address, state, inode = 1, 3, 9
		listen                = "0A"
	)
	var found []string
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) <= inode || fields[state] != listen {
			continue
		}
		_, hex, ok := strings.Cut(fields[address], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && int(n) == port {
			found = append(found, fields[inode])
		}
	}
	return found
}

// lockOwner returns the process that holds a flock(2) lock on a file, from /proc/locks (proc_locks(5)), or 0 if none is
// listed. Locks of processes in other PID namespaces are not listed.
func lockOwner(table []byte, device, inode uint64) int {
	const kind, owner, file = 1, 4, 5
	wanted := fmt.Sprintf("%02x:%02x:%d", unix.Major(device), unix.Minor(device), inode)
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) <= file || fields[kind] != "FLOCK" || fields[file] != wanted {
			continue
		}
		if pid, err := strconv.Atoi(fields[owner]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
