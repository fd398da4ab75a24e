package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/openmep/mep/tests/process"
)

// dnsServer is a DNS server process.
type dnsServer struct {
	figures
	tally      // of all rounds
	name, addr string
	ops        string // URL of the operations listener, if it is one of ours
	log        string // file
	ended      chan struct{}
}

// startDNS starts a program and waits until it answers for the last name of a zone.
func startDNS(o *options, name, addr string, z *zone, program string, args ...string) (*dnsServer, error) {
	s := &dnsServer{name: name, addr: addr, log: filepath.Join(o.dir, uuid.NewString()), ended: make(chan struct{})}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MEP_") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.pid = cmd.Process.Pid
	go func() {
		_ = cmd.Wait()
		close(s.ended)
	}()
	if err := s.await(z); err != nil {
		s.stop()
		text, _ := os.ReadFile(s.log)
		return nil, fmt.Errorf("%s: %w; its log:\n%s", name, err, text)
	}
	return s, nil
}

// await waits until the server answers for the last name of a zone.
func (s *dnsServer) await(z *zone) error {
	const patience = time.Minute
	r, err := newResolver(s.addr)
	if err != nil {
		return err
	}
	defer r.close()
	last := z.names() - 1
	for end := time.Now().Add(patience); ; {
		if got, err := r.lookup(z.name(last), 20*time.Millisecond); err == nil && got.address == z.address(last) {
			return nil
		}
		select {
		case <-s.ended:
			return errors.New("it ended before it answered")
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("it did not answer within %s", patience)
		}
	}
}

// stop kills the process and its children.
func (s *dnsServer) stop() {
	_ = syscall.Kill(-s.pid, syscall.SIGKILL)
	<-s.ended
}

// reportLosses reports queries that were not answered correctly, if any.
func (s *dnsServer) reportLosses() {
	err := s.fault()
	if err == nil {
		return
	}
	report("%s: %v", s.name, err)
	if _, port, err := net.SplitHostPort(s.addr); err == nil {
		if n, err := strconv.Atoi(port); err == nil {
			dropped, _ := udpDrops(n)
			report("  since it began, its sockets had no room for %d questions", dropped)
		}
	}
}

// startAgent starts the platform's DNS server with an etcd.
func startAgent(o *options, e *etcd, z *zone, args ...string) (*dnsServer, error) {
	addr, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	ops, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	s, err := startDNS(o, "dnsagent", addr, z, filepath.Join(filepath.Dir(o.mep), "dnsagent"), append([]string{
		"run", "--dev", "--data-dir", filepath.Join(o.dir, uuid.NewString()), "--etcd-endpoints", e.addr, "--log-format", "json",
		"--dns-listen", addr, "--dns-management-listen", "127.0.0.1:0", "--ops-listen", ops, "--dns-zones", z.origin,
	}, args...)...)
	if err == nil {
		s.ops = "http://" + ops
		if o.profiles != "" {
			go profile(s.ops, o.profiles)
		}
	}
	return s, err
}

// startFilledAgent starts the platform's DNS server with its own etcd, which holds the rules of a zone.
func startFilledAgent(o *options, z *zone, args ...string) (s *dnsServer, stop func(), err error) {
	e, err := startEtcd(o, managers)
	if err != nil {
		return nil, nil, err
	}
	if err = e.store(z); err == nil {
		s, err = startAgent(o, e, z, args...)
	}
	if err != nil {
		e.stop()
		return nil, nil, err
	}
	return s, func() { s.stop(); e.stop() }, nil
}

func freePort() (addr, port string, err error) {
	if addr, err = process.FreeAddr(); err == nil {
		_, port, err = net.SplitHostPort(addr)
	}
	return addr, port, err
}
