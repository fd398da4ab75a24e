package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openmep/mep/tests/process"
)

// Tool returns the path of a system program; the test is skipped if it is not installed.
func Tool(tb testing.TB, name, distribution string) string {
	tb.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	tb.Skipf("%s is not installed (Debian's package %s)", name, distribution)
	return ""
}

// RunTool runs a system program, which must succeed, and returns its output.
func RunTool(tb testing.TB, path string, args ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", path, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// StartNSD runs NSD with a zone until the test ends and returns its address.
func StartNSD(tb testing.TB, zone, zoneFile string) string {
	tb.Helper()
	program := Tool(tb, "nsd", "nsd")
	dir, addr := tb.TempDir(), FreeAddr(tb)
	host, port, _ := net.SplitHostPort(addr)
	config := write(tb, filepath.Join(dir, "nsd.conf"), fmt.Sprintf(`
server:
  ip-address: %s@%s
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: %q
  pidfile: ""
  database: ""
  xfrdfile: %q
  zonelistfile: %q
  xfrdir: %q
  minimal-responses: yes
  rrl-ratelimit: 0
  hide-version: yes
remote-control:
  control-enable: no
zone:
  name: %q
  zonefile: %q
`, host, port, dir, dir+"/xfrd.state", dir+"/zone.list", dir, zone, write(tb, filepath.Join(dir, "zone"), zoneFile)))
	return serve(tb, addr, zone, exec.Command(program, "-d", "-c", config))
}

// StartKnot runs Knot DNS with a zone until the test ends and returns its address.
func StartKnot(tb testing.TB, zone, zoneFile string) string {
	tb.Helper()
	program := Tool(tb, "knotd", "knot")
	dir, addr := tb.TempDir(), FreeAddr(tb)
	host, port, _ := net.SplitHostPort(addr)
	config := write(tb, filepath.Join(dir, "knot.conf"), fmt.Sprintf(`
server:
    rundir: %q
    listen: %s@%s
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    version: ""
    identity: ""
database:
    storage: %q
log:
  - target: stderr
    any: warning
zone:
  - domain: %s
    storage: %q
    file: zone
    zonefile-load: whole
    journal-content: none
    semantic-checks: off
`, dir, host, port, dir, zone, dir))
	write(tb, filepath.Join(dir, "zone"), zoneFile)
	return serve(tb, addr, zone, exec.Command(program, "-c", config))
}

func write(tb testing.TB, path, text string) string {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatalf("harness: %v", err)
	}
	return path
}

// FreeAddr returns a loopback address that is free for UDP and TCP and remains so until the test uses it.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	addr, err := process.FreeAddr()
	if err != nil {
		tb.Fatalf("harness: %v", err)
	}
	return addr
}

// serve runs a DNS server until the test ends, and returns when the server answers for its zone.
func serve(tb testing.TB, addr, zone string, cmd *exec.Cmd) string {
	tb.Helper()
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("harness: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	r := ResolverAt(tb, addr)
	Eventually(tb, cmd.Path+" serves "+zone, func() error {
		reply, err := r.Try(Question(zone, "SOA"), time.Second)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, tail(log.String(), 20))
		}
		return Not(reply.RCode() == "NOERROR" && len(reply.Answer) == 1, "it answers %s\n%s", reply.Msg, tail(log.String(), 20))
	})
	return addr
}

// Program returns the path of one of the platform's programs, for uses that the harness does not support.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	return binary(tb, name)
}
