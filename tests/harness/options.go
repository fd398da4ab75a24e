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

// Env adds variables, each as NAME=value, to the environment, from which all other MEP_ variables are removed.
func Env(vars ...string) Option {
	return func(s *spec) { s.env = append(s.env, vars...) }
}

// Config gives the process a configuration file with this content.
func Config(yaml string) Option {
	return func(s *spec) { s.config = yaml }
}

// DataDir makes the process use an existing directory.
func DataDir(dir string) Option {
	return func(s *spec) { s.dataDir = dir }
}

// NoCommand omits the word "run".
func NoCommand() Option {
	return func(s *spec) { s.noCommand = true }
}

// Secure runs the process as in production, without --dev: with TLS by its own CA, and only for callers with a token. Its
// listeners are on 127.0.0.1.
func Secure() Option {
	return func(s *spec) { s.secure = true }
}

// Trust makes the clients of a secure process trust the certificates in a PEM file instead of the process's own CA.
func Trust(caFile string) Option {
	return func(s *spec) { s.caFile = caFile }
}

// Unready does not wait until the process is ready, only until it has logged its listeners.
func Unready() Option {
	return func(s *spec) { s.unready = true }
}

// faultEnv names the environment variable with the fault point at which a program built for it ends.
const faultEnv = "MEP_FAULT"

// Fault runs a program that was built with the fault points of package fault, and makes it end at point as if by kill -9. With
// Restart and an empty point it runs normally.
func Fault(point string) Option {
	return func(s *spec) { s.faults, s.fault, s.mayFail = true, point, point != "" }
}

// MayFail allows the process to exit by itself and with a non-zero code.
func MayFail() Option {
	return func(s *spec) { s.mayFail = true }
}

// Scratch returns a directory for data, in memory if there is room: on a disk that many processes write to, each of them is
// sometimes blocked for seconds. Data written there also survives the death of the process.
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

// answered matches the log lines of requests that went as expected.
var answered = regexp.MustCompile(`(?m)^.* msg=request .* status=[234]\d\d .*\n`)

// environment returns the test's environment without settings of the platform, and with a new directory for temporary files,
// whose path is short enough for sockets.
func environment(tb testing.TB, vars ...string) []string {
	tb.Helper()
	tmp, err := os.MkdirTemp("", "mept") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		tb.Fatalf("harness: %v", err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(tmp) })
	// Programs that a test starts directly must not claim fixed ports either.
	env := []string{"TMPDIR=" + tmp, "MEP_DNS_LISTEN=127.0.0.1:0", "MEP_DNS_MANAGEMENT_LISTEN=127.0.0.1:0", "MEP_GATEWAY_LISTEN=127.0.0.1:0", "MEP_GATEWAY_MANAGEMENT_LISTEN=127.0.0.1:0"}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MEP_") && !strings.HasPrefix(v, "TMPDIR=") {
			env = append(env, v)
		}
	}
	return append(env, vars...)
}

// errEnded reports that a process exited before it was ready.
var errEnded = errors.New("ended while it was starting")
