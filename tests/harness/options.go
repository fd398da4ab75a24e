package harness

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// Option changes how a process is started.
type Option func(*spec)

// Args adds arguments to the command line.
func Args(args ...string) Option {
	return func(s *spec) { s.args = append(s.args, args...) }
}

// Env adds variables, each as NAME=value, to the environment, which has no other MEP_ variable.
func Env(vars ...string) Option {
	return func(s *spec) { s.env = append(s.env, vars...) }
}

// Config gives the process a configuration file with this text.
func Config(yaml string) Option {
	return func(s *spec) { s.config = yaml }
}

// DataDir makes the process use a directory that exists already.
func DataDir(dir string) Option {
	return func(s *spec) { s.dataDir = dir }
}

// NoCommand leaves the word "run" out.
func NoCommand() Option {
	return func(s *spec) { s.noCommand = true }
}

// Secure runs the process as it runs in operation, without --dev: with TLS by a CA of its own, and for callers with a token
// only. Its listeners are on 127.0.0.1.
func Secure() Option {
	return func(s *spec) { s.secure = true }
}

// Trust makes the clients of a secure process trust the certificates in a PEM file in the place of its own CA.
func Trust(caFile string) Option {
	return func(s *spec) { s.caFile = caFile }
}

// Unready does not wait until the process is ready, only until it says where it listens.
func Unready() Option {
	return func(s *spec) { s.unready = true }
}

// faultEnv names the environment variable with the point at which a process ends that was built for it.
const faultEnv = "MEP_FAULT"

// Fault runs a program that was built with the points of package fault, and has it end at one of them as by kill -9. With
// Restart and no point it goes on like any other.
func Fault(point string) Option {
	return func(s *spec) { s.faults, s.fault, s.mayFail = true, point, point != "" }
}

// MayFail allows the process to end by itself, and with another exit code than 0.
func MayFail() Option {
	return func(s *spec) { s.mayFail = true }
}

// Scratch makes a directory for data, in memory where there is room: a disk that many processes write to at a time makes
// each of them wait for seconds now and then, and what a process wrote outlives its death there, too.
func Scratch(tb testing.TB) string {
	tb.Helper()
	const memory = "/dev/shm"
	var st syscall.Statfs_t
	if err := syscall.Statfs(memory, &st); err != nil || int64(st.Bavail)*st.Bsize < roomForScratch {
		return tb.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "mept") //nolint:usetesting // that is on the disk
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// answered are the lines of requests that went as expected.
var answered = regexp.MustCompile(`(?m)^.* msg=request .* status=[234]\d\d .*\n`)

// environment is that of the test without settings of the platform, and with a directory for temporary files of
// its own, whose path is short enough for sockets.
func environment(tb testing.TB, vars ...string) []string {
	tb.Helper()
	tmp, err := os.MkdirTemp("", "mept") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		tb.Fatalf("harness: %v", err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(tmp) })
	// Whatever a test starts by hand is not to want the ports of others either.
	env := []string{"TMPDIR=" + tmp, "MEP_DNS_LISTEN=127.0.0.1:0", "MEP_DNS_MANAGEMENT_LISTEN=127.0.0.1:0", "MEP_GATEWAY_LISTEN=127.0.0.1:0", "MEP_GATEWAY_MANAGEMENT_LISTEN=127.0.0.1:0"}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MEP_") && !strings.HasPrefix(v, "TMPDIR=") {
			env = append(env, v)
		}
	}
	return append(env, vars...)
}

// errEnded says that a process ended before it was ready.
var errEnded = errors.New("ended while it was starting")
