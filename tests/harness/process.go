package harness

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// StopWithin is how long a process may take to exit after SIGTERM: what it promises.
const StopWithin = 5 * time.Second

// Process is a running program of the platform.
type Process struct {
	// DataDir is the data directory of the process. It outlives the process, so that Restart can use it.
	DataDir string
	// ConfigFile is the configuration file, "" if there is none.
	ConfigFile string

	tb   testing.TB
	spec spec

	mu      sync.Mutex
	running *running // nil after the process was stopped or killed
	log     *logBuffer
	earlier string // the logs of previous runs
	urls    map[string]string
	paths   map[string]*http.Transport // by local address
	tokens  map[string]string          // of managers, by access key
}

type running struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has exited
	reader *os.File      // its output
}

type spec struct {
	program     string
	args        []string
	env         []string
	config      string
	dataDir     string
	unready     bool
	mayFail     bool
	noCommand   bool
	secure      bool
	caFile      string
	faults      bool
	fault       string
	environment []string
	without     string // a listener that is turned off
}

// listeners returns the listeners of the process other than the operations listener.
func (s *spec) listeners() []string {
	return slices.DeleteFunc(slices.Clone(listeners[s.program]), func(name string) bool {
		return s.without != "" && strings.HasPrefix(name, s.without)
	})
}

// command returns the command that starts the process.
func (s *spec) command(tb testing.TB) *exec.Cmd {
	tb.Helper()
	if !s.faults {
		cmd := exec.Command(binary(tb, s.program), s.args...)
		cmd.Env = s.environment
		return cmd
	}
	cmd := exec.Command(programIn(tb, faulty, s.program), s.args...)
	cmd.Env = append(slices.Clone(s.environment), faultEnv+"="+s.fault)
	return cmd
}

// Start runs mep in development mode on free ports and returns when it is ready. At the end of the test, the process receives
// SIGTERM; the test fails unless the process then exits with 0 within StopWithin.
func Start(tb testing.TB, opts ...Option) *Process {
	tb.Helper()
	return start(tb, "mep", opts...)
}

// StartMepserver runs the daemon mepserver with an etcd, as Start runs mep.
func StartMepserver(tb testing.TB, etcdEndpoint string, opts ...Option) *Process {
	tb.Helper()
	return start(tb, "mepserver", append([]Option{Args("--etcd-endpoints", etcdEndpoint)}, opts...)...)
}

// StartMepauth runs the daemon mepauth with an etcd, as Start runs mep.
func StartMepauth(tb testing.TB, etcdEndpoint string, opts ...Option) *Process {
	tb.Helper()
	return start(tb, "mepauth", append([]Option{Args("--etcd-endpoints", etcdEndpoint)}, opts...)...)
}

// StartDNSAgent runs the daemon dnsagent with an etcd, as Start runs mep.
func StartDNSAgent(tb testing.TB, etcdEndpoint string, opts ...Option) *Process {
	tb.Helper()
	return start(tb, "dnsagent", append([]Option{Args("--etcd-endpoints", etcdEndpoint)}, opts...)...)
}

// StartGateway runs the daemon gateway with an etcd, as Start runs mep.
func StartGateway(tb testing.TB, etcdEndpoint string, opts ...Option) *Process {
	tb.Helper()
	return start(tb, "gateway", append([]Option{Args("--etcd-endpoints", etcdEndpoint)}, opts...)...)
}

// listeners holds the listeners of each program other than the operations listener.
var listeners = map[string][]string{
	"mep": {"mp1", "mm5", "auth", "dns", "dns-management", "gateway", "gateway-management"}, "mepserver": {"mp1", "mm5"}, "mepauth": {"auth"},
	"dnsagent": {"dns", "dns-management"}, "gateway": {"gateway", "gateway-management"},
}

// arguments returns the command line, without the data directory and the configuration file.
func (s *spec) arguments() []string {
	var args []string
	if !s.noCommand {
		args = append(args, "run")
	}
	free := "127.0.0.1:0"
	if s.secure {
		args = append(args, "--log-format", "text")
	} else {
		args, free = append(args, "--dev"), ":0"
	}
	for _, name := range s.listeners() {
		args = append(args, "--"+name+"-listen", free)
	}
	if s.without != "" {
		args = append(args, "--"+s.without+"-listen", "off")
	}
	return append(append(args, "--ops-listen", "127.0.0.1:0"), s.args...)
}

// Development returns the command line of a program in development mode, with every listener on a free port unless more
// overrides it.
func Development(program string, more ...string) []string {
	return (&spec{program: program, args: more}).arguments()
}

func start(tb testing.TB, program string, opts ...Option) *Process {
	tb.Helper()
	p := &Process{
		tb: tb, spec: spec{program: program},
		paths: make(map[string]*http.Transport), tokens: make(map[string]string),
	}
	for _, o := range opts {
		o(&p.spec)
	}
	p.spec.args = p.spec.arguments()
	if p.DataDir = p.spec.dataDir; p.DataDir == "" {
		p.DataDir = filepath.Join(Scratch(tb), "data")
	}
	p.spec.args = append(p.spec.args, "--data-dir", p.DataDir)
	if p.spec.config != "" {
		p.ConfigFile = filepath.Join(tb.TempDir(), "config.yaml")
		p.Configure(p.spec.config)
		p.spec.args = append(p.spec.args, "--config", p.ConfigFile)
	}
	p.spec.environment = environment(tb, p.spec.env...)
	tb.Cleanup(func() {
		p.hangUp()
		p.Stop()
		if tb.Failed() {
			tb.Logf("end of the log of %s, without requests that were answered:\n%s", program, tail(answered.ReplaceAllString(p.Log(), ""), 40))
		}
	})
	p.launch()
	return p
}

// roomForScratch is the free memory required for keeping data directories there, in bytes.
const roomForScratch = 4 << 30

// launch starts the process and waits for it according to the options.
func (p *Process) launch() {
	p.tb.Helper()
	if err := p.tryLaunch(); err != nil {
		p.tb.Fatalf("%s is not ready: %v\n%s", p.spec.program, err, tail(p.Log(), 60))
	}
}

func (p *Process) tryLaunch() error {
	p.tb.Helper()
	log := &logBuffer{}
	reader, writer, err := os.Pipe()
	if err != nil {
		p.tb.Fatalf("harness: %v", err)
	}
	cmd := p.spec.command(p.tb)
	cmd.Stdout, cmd.Stderr = writer, writer
	err = cmd.Start()
	_ = writer.Close() // the process has its own copy
	if err != nil {
		p.tb.Fatalf("harness: start %s: %v", p.spec.program, err)
	}
	r := &running{cmd: cmd, done: make(chan struct{}), reader: reader}
	go func() {
		_, _ = io.Copy(log, reader)
		_ = cmd.Wait() // the outcome is in cmd.ProcessState
		_ = reader.Close()
		close(r.done)
	}()
	p.mu.Lock()
	if p.log != nil {
		p.earlier += p.log.String()
	}
	p.running, p.log, p.urls = r, log, nil
	p.mu.Unlock()
	var ended error
	err = poll(2*Patience, func() error {
		if r.ended() {
			ended = fmt.Errorf("%w: %s", errEnded, cmd.ProcessState)
			return nil
		}
		return p.findListeners()
	})
	return errors.Join(err, ended)
}

func (r *running) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

var listening = regexp.MustCompile(`msg=listening listener=([\w-]+) url=(\S+)`)

// Log returns what the current run has written so far to stdout and stderr.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// AllLogs returns what the process has written in all its runs.
func (p *Process) AllLogs() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.earlier + p.log.String()
}

// CloseLog stops reading the output of the process, as if a log collector died.
func (p *Process) CloseLog() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.running.reader.Close()
}

// Pid returns the process id, 0 if the process is not running.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return 0
	}
	return p.running.cmd.Process.Pid
}

// Running reports whether the process is running.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running != nil && !p.running.ended()
}

// Signal sends the process a signal.
func (p *Process) Signal(sig os.Signal) {
	p.tb.Helper()
	p.mu.Lock()
	r := p.running
	p.mu.Unlock()
	if r == nil {
		p.tb.Errorf("harness: %s is not running", p.spec.program)
		return
	}
	if err := r.cmd.Process.Signal(sig); err != nil {
		p.tb.Errorf("harness: signal %s: %v", p.spec.program, err)
	}
}

// Kill kills the process with SIGKILL.
func (p *Process) Kill() {
	p.tb.Helper()
	if r := p.take(); r != nil {
		_ = r.cmd.Process.Kill() // it may have exited already
		<-r.done
	}
}

// Stop stops the process with SIGTERM and returns how long that took, 0 if it was not running. The test fails unless the
// process exits with 0 within StopWithin.
func (p *Process) Stop() time.Duration {
	p.tb.Helper()
	r := p.take()
	if r == nil {
		return 0
	}
	ended := r.ended()
	begin := time.Now()
	if !ended {
		_ = r.cmd.Process.Signal(syscall.SIGTERM) // it may exit at this very moment
	}
	return p.await(r, begin, ended)
}

// take gives the caller sole responsibility for ending the process.
func (p *Process) take() *running {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.running
	p.running = nil
	return r
}

func (p *Process) await(r *running, begin time.Time, early bool) time.Duration {
	p.tb.Helper()
	select {
	case <-r.done:
	case <-time.After(StopWithin):
		p.tb.Errorf("%s did not end within %s of SIGTERM", p.spec.program, StopWithin)
		_ = r.cmd.Process.Signal(syscall.SIGQUIT) // writes its goroutines to the log
		select {
		case <-r.done:
		case <-time.After(2 * time.Second):
			_ = r.cmd.Process.Kill()
			<-r.done
		}
		return time.Since(begin)
	}
	if early && !p.spec.mayFail {
		p.tb.Errorf("%s ended by itself: %s\n%s", p.spec.program, r.cmd.ProcessState, tail(p.Log(), 60))
	} else if code := r.cmd.ProcessState.ExitCode(); code != 0 && !p.spec.mayFail {
		p.tb.Errorf("%s exited with %d after SIGTERM\n%s", p.spec.program, code, tail(p.Log(), 20))
	}
	return time.Since(begin)
}

// Terminate sends SIGTERM and returns immediately. The returned function waits as Stop does.
func (p *Process) Terminate() (wait func() time.Duration) {
	p.tb.Helper()
	begin := time.Now()
	p.Signal(syscall.SIGTERM)
	return func() time.Duration {
		p.tb.Helper()
		r := p.take()
		if r == nil {
			return 0
		}
		return p.await(r, begin, false)
	}
}

// Ended waits until the process has exited by itself and returns its exit code.
func (p *Process) Ended() int {
	p.tb.Helper()
	r := p.take()
	select {
	case <-r.done:
	case <-time.After(Patience):
		_ = r.cmd.Process.Kill()
		<-r.done
		p.tb.Fatalf("%s did not end by itself\n%s", p.spec.program, tail(p.Log(), 40))
	}
	return r.cmd.ProcessState.ExitCode()
}

// Restart starts the process again with the same data, after stopping it if it is running. The new run has different ports and
// a new log.
func (p *Process) Restart(opts ...Option) {
	p.tb.Helper()
	p.Stop()
	for _, o := range opts {
		o(&p.spec)
	}
	p.launch()
}

// RestartOrEnd is like Restart for a process that may refuse to start; code is then its exit code.
func (p *Process) RestartOrEnd() (running bool, code int) {
	p.tb.Helper()
	p.Stop()
	err := p.tryLaunch()
	switch {
	case err == nil:
		return true, 0
	case errors.Is(err, errEnded):
		return false, p.Ended()
	}
	p.tb.Fatalf("%s is not ready: %v\n%s", p.spec.program, err, tail(p.Log(), 60))
	return false, 0
}

// Configure replaces the content of the configuration file.
func (p *Process) Configure(yaml string) {
	p.tb.Helper()
	if err := os.WriteFile(p.ConfigFile, []byte(yaml), 0o600); err != nil {
		p.tb.Fatalf("harness: %v", err)
	}
}

// Reload replaces the configuration file, sends SIGHUP, and waits until the log reports the outcome. It returns whether the new
// settings are in force.
func (p *Process) Reload(yaml string) (accepted bool) {
	p.tb.Helper()
	p.Configure(yaml)
	const yes, no = `msg="configuration reloaded"`, `msg="configuration not reloaded`
	count := func() (int, int) {
		log := p.Log()
		return strings.Count(log, yes), strings.Count(log, no)
	}
	yesBefore, noBefore := count()
	p.Signal(syscall.SIGHUP)
	Eventually(p.tb, "the configuration is reloaded or refused", func() error {
		y, n := count()
		accepted = y > yesBefore
		return Not(y > yesBefore || n > noBefore, "the log says nothing of it")
	})
	return accepted
}

// Hangup sends SIGHUP, which makes the process read its files again.
func (p *Process) Hangup() {
	p.tb.Helper()
	p.Signal(syscall.SIGHUP)
}

// PeakMemory returns the peak resident memory of the process so far, in bytes.
func (p *Process) PeakMemory() int64 {
	p.tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		p.tb.Skipf("the memory of a process cannot be read here: %v", err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		p.tb.Skip("the memory of a process cannot be read here")
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		p.tb.Fatalf("harness: %v", err)
	}
	return kib << 10
}
