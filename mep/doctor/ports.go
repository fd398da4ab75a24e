package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"syscall"
)

// ports checks that each listener can be bound, or is served.
func (x *examination) ports(ctx context.Context, f *findings) {
	var open []net.Listener // kept until the end, because two listeners may want the same address
	defer func() {
		for _, ln := range open {
			_ = ln.Close()
		}
	}()
	taken := make(map[int]string)
	for _, l := range x.listeners() {
		if x.serves(f, l) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, patience)
		ln, err := x.host.listen(ctx, l.addr)
		if err == nil && l.name == "dns" {
			err = x.packetsToo(ctx, ln)
		}
		cancel()
		port := portOf(l.addr)
		switch {
		case err != nil:
			x.unbound(f, l, taken[port], err)
		case port == 0:
			f.ok(l.setting(), l.addr+": any free port is taken")
		default:
			f.ok(l.setting(), l.addr+" is free")
		}
		if err == nil {
			open = append(open, ln)
			taken[port] = l.setting()
		}
	}
}

// packetsToo checks that UDP can be bound to the address that TCP is bound to.
func (x *examination) packetsToo(ctx context.Context, ln net.Listener) error {
	pc, err := x.host.packets(ctx, ln.Addr().String())
	if err != nil {
		return errors.Join(fmt.Errorf("UDP: %w", err), ln.Close())
	}
	return pc.Close()
}

// serves checks whether the running platform has the listener, and reports whether nothing more can be found out.
func (x *examination) serves(f *findings, l listener) bool {
	switch at := x.up.ready.Listeners[l.name]; {
	case !x.answers():
		return false
	case x.mute():
		f.note(l.setting(), l.addr+" is not looked at: the running platform does not say where it listens")
	case at == "":
		f.note(l.setting(), l.addr+" is not bound by the running platform, which is still starting")
	case portOf(l.addr) == 0 || portOf(l.addr) == portOfURL(at):
		f.ok(l.setting(), l.addr+" is served by the running platform, at "+at)
	default:
		f.warn(l.setting(), fmt.Sprintf("is %s, but the running platform listens at %s", l.addr, at),
			"restart the platform, or give mep doctor the settings it runs with")
	}
	return true
}

// portOfURL returns the port of a listener's URL; 0 if it has none.
func portOfURL(s string) int {
	u, err := url.Parse(s)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		return 0
	}
	return n
}

// unbound says why a listener cannot be bound. rival is the setting of the listener that has its port, if one does.
func (x *examination) unbound(f *findings, l listener, rival string, err error) {
	port := portOf(l.addr)
	var unknown *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && rival != "":
		f.fail(l.setting(), l.addr+" has the port of "+rival, "give each listener a port of its own")
	case errors.Is(err, syscall.EADDRINUSE):
		by := x.host.listener(port)
		if x.up.held && by.pid != 0 && by.pid == x.up.holder.pid {
			f.ok(l.setting(), l.addr+" is served by "+by.String()+", which holds the data directory")
			return
		}
		f.fail(l.setting(), l.addr+" is in use by "+by.String(),
			fmt.Sprintf("end that process, or set %s to another port (ss -ltnp 'sport = %d' shows who listens); if it is this platform, "+
				"say which data directory it uses with --data-dir", l.setting(), port))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		f.fail(l.setting(), l.addr+" is not an address of this machine",
			fmt.Sprintf("take one that ip addr lists, or :%d for all", port))
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		f.fail(l.setting(), fmt.Sprintf("%s may not be bound by user %d: ports this low are privileged", l.addr, x.host.uid),
			"take a port from 1024, or give the platform CAP_NET_BIND_SERVICE (AmbientCapabilities= and CapabilityBoundingSet= in its systemd unit)")
	case errors.As(err, &unknown):
		f.fail(l.setting(), l.addr+" has a host that is not known ("+err.Error()+")", "write an address of this machine, or correct the name")
	default:
		f.fail(l.setting(), l.addr+" cannot be bound ("+err.Error()+")", "set "+l.setting()+" to another address")
	}
}
