package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/ops"
)

// platform is what is known about a running platform.
type platform struct {
	// held says that a process holds the data directory; holder is that process, as far as it is known.
	held   bool
	holder process
	// lockErr is why it is unknown whether a process does.
	lockErr error
	// socket is the address of that process's etcd; empty if the process does not give it.
	socket string
	// asked is nil if something responded at the operations listener; ready is the response.
	asked error
	ready ops.Readiness
}

// look queries the lock of the data directory and the operations listener.
func look(ctx context.Context, in Installation, h host) platform {
	var p platform
	p.ready, p.asked = daemon.AskReady(ctx, in.Common)
	if len(in.Common.EtcdEndpoints) > 0 {
		return p
	}
	if p.held, p.holder, p.lockErr = inspectLock(in.LockFile); !p.held {
		return p
	}
	if p.holder.pid == 0 && p.asked == nil {
		// The holder is in another PID namespace; perhaps it can be found by its socket.
		if port := portOf(in.Common.OpsListen); port != 0 {
			p.holder = h.listener(port)
		}
	}
	text, err := os.ReadFile(in.LockFile)
	p.lockErr, p.socket = err, strings.TrimSpace(string(text))
	return p
}

// inspectLock reports whether a process holds a lock file. It tries a shared lock, which is refused while a platform runs, and
// otherwise released at once.
func inspectLock(file string) (held bool, holder process, err error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, process{}, nil
	}
	if err != nil {
		return false, process{}, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		return false, process{}, nil // closing the file releases the lock
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return false, process{}, err
	}
	var st unix.Stat_t
	table, terr := os.ReadFile("/proc/locks")
	if terr == nil && unix.Fstat(int(f.Fd()), &st) == nil {
		if pid := lockOwner(table, st.Dev, st.Ino); pid != 0 {
			holder = process{pid: pid, name: processName(pid)}
		}
	}
	return true, holder, nil
}

// answers reports whether the platform of this installation responded. A response while nobody holds the data directory is from
// another one.
func (x *examination) answers() bool {
	return x.up.asked == nil && (!x.embedded() || x.up.held || x.up.lockErr != nil)
}

// runs reports whether the platform of this installation runs, or another process uses its data.
func (x *examination) runs() bool { return x.up.held || x.answers() }

// mute reports whether the platform responded, but tells nothing to callers without a token.
func (x *examination) mute() bool {
	r := &x.up.ready
	return x.answers() && !r.Ready && len(r.NotReady) == 0 && len(r.Listeners) == 0
}

// platform reports what the running platform says about itself.
func (x *examination) platform(_ context.Context, f *findings) {
	at := x.Common.OpsListen
	switch {
	case x.mute():
		f.warn(at, "answers nobody without a token, so that readiness is not known",
			"set ops.listen to an address on loopback, or to :port, where this machine may ask without one")
		return
	case x.answers():
		x.readiness(f)
		return
	case x.up.held && portOf(at) == 0:
		f.note(x.Common.DataDir, "is used by "+x.up.holder.String()+"; it is not asked how it is, because ops.listen does not say the port")
	case x.up.held:
		f.fail(x.Common.DataDir, "is used by "+x.up.holder.String()+", but nothing answers at "+at,
			"give mep doctor the settings of that process (ops.listen), wait if it is another command of mep, or look at its log")
	case x.up.asked == nil:
		f.note("the platform", "does not run on this data directory; what answers at "+at+" is another one")
	case x.embedded():
		f.note("the platform", "does not run")
	default:
		f.note("the platform", "does not answer at "+at+": it does not run, or not with this ops.listen")
	}
}

func (x *examination) readiness(f *findings) {
	r := &x.up.ready
	for _, n := range r.NotReady {
		f.fail(n.Name, n.Reason, hint(n.Name))
	}
	for _, n := range r.Degraded {
		f.warn(n.Name, n.Reason, hint(n.Name))
	}
	switch {
	case r.Ready:
		f.ok("the platform", "is ready, says "+x.Common.OpsListen)
	case len(r.NotReady) == 0:
		f.fail("the platform", "is not ready and does not say why", "look at its log")
	}
}

// hint says what to do about a part of the platform that is not ready or works with restrictions.
func hint(part string) string {
	switch part {
	case "process":
		return "wait some seconds and ask again; if it stays so, its log says what it waits for"
	case "state":
		return "see to etcd (the check of that name), or to the network between"
	case "certificates":
		return "mend the file that is named; it is looked at again by itself"
	case "tokens":
		return "see the checks of etcd and tokens; the log says what keeps the signing keys from being read"
	case "storage":
		return "make room on the disk, or have services removed, or change storage.quota or storage.reserve and restart"
	}
	return "look at the log of the platform"
}
