package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// StopWithin is how long a process may take to end after SIGTERM.
const StopWithin = 5 * time.Second

// Process is a running program of the platform.
type Process struct {
	// DataDir is its data directory. It outlives the process, so that a Restart finds it again.
	DataDir string
	// ConfigFile is its configuration file, "" when it has none.
	ConfigFile string

	tb   testing.TB
	spec spec

	mu      sync.Mutex
	running *running // nil when the process was stopped or killed
	log     *logBuffer
	urls    map[string]string
}

type running struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
	reader *os.File      // what it writes
}

type spec struct {
	program     string
	args        []string
	env         []string
	config      string
	dataDir     string
	unready     bool
	mayFail     bool
	environment []string
}

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
	return func(s *spec) { s.args = s.args[1:] }
}

// Unready does not wait until the process is ready, only until it says where it listens.
func Unready() Option {
	return func(s *spec) { s.unready = true }
}

// MayFail allows the process to end by itself, and with another exit code than 0.
func MayFail() Option {
	return func(s *spec) { s.mayFail = true }
}

// Start runs mep in development mode on free ports, and returns when it is ready. At the end of the test it is sent
// SIGTERM; the test fails when the process does not exit with 0 within StopWithin then.
func Start(tb testing.TB, opts ...Option) *Process {
	tb.Helper()
	return start(tb, "mep", opts...)
}

// StartMepserver runs the daemon mepserver against an etcd as Start runs mep.
func StartMepserver(tb testing.TB, etcdEndpoint string, opts ...Option) *Process {
	tb.Helper()
	return start(tb, "mepserver", append([]Option{Args("--etcd-endpoints", etcdEndpoint)}, opts...)...)
}

func start(tb testing.TB, program string, opts ...Option) *Process {
	tb.Helper()
	p := &Process{tb: tb, spec: spec{
		program: program,
		args:    []string{"run", "--dev", "--mp1-listen", ":0", "--ops-listen", "127.0.0.1:0"},
	}}
	for _, o := range opts {
		o(&p.spec)
	}
	if p.DataDir = p.spec.dataDir; p.DataDir == "" {
		p.DataDir = filepath.Join(scratch(tb), "data")
	}
	p.spec.args = append(p.spec.args, "--data-dir", p.DataDir)
	if p.spec.config != "" {
		p.ConfigFile = filepath.Join(tb.TempDir(), "config.yaml")
		p.Configure(p.spec.config)
		p.spec.args = append(p.spec.args, "--config", p.ConfigFile)
	}
	p.spec.environment = environment(tb, p.spec.env...)
	tb.Cleanup(func() {
		p.Stop()
		if tb.Failed() {
			tb.Logf("end of the log of %s, without requests that were answered:\n%s", program, tail(answered.ReplaceAllString(p.Log(), ""), 40))
		}
	})
	p.launch()
	return p
}

// roomForScratch is how much must be free in memory for data directories to be there.
const roomForScratch = 4 << 30

// scratch makes a directory for data, in memory where there is room: a disk that many processes write to at a time makes
// each of them wait for seconds now and then, and what a process wrote outlives its death there, too.
func scratch(tb testing.TB) string {
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
	env := []string{"TMPDIR=" + tmp}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MEP_") && !strings.HasPrefix(v, "TMPDIR=") {
			env = append(env, v)
		}
	}
	return append(env, vars...)
}

// errEnded says that a process ended before it was ready.
var errEnded = errors.New("ended while it was starting")

// launch starts the process and waits for it as the options say.
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
	cmd := exec.Command(binary(p.tb, p.spec.program), p.spec.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.spec.environment, writer, writer
	err = cmd.Start()
	_ = writer.Close() // the process has its own
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

var listening = regexp.MustCompile(`msg=listening listener=(\w+) url=(\S+)`)

// findListeners learns the addresses from the log and, unless it is not to be waited for, asks whether all is ready.
func (p *Process) findListeners() error {
	urls := make(map[string]string)
	for _, m := range listening.FindAllStringSubmatch(p.Log(), -1) {
		urls[m[1]] = m[2]
	}
	if urls["ops"] == "" || urls["mp1"] == "" {
		return errors.New("the log does not say where it listens")
	}
	p.mu.Lock()
	p.urls = urls
	p.mu.Unlock()
	if p.spec.unready {
		return nil
	}
	status, r, err := p.Ready()
	if err != nil {
		return err
	}
	if status != http.StatusOK || !r.Ready {
		return fmt.Errorf("/readyz answers %d %+v", status, r)
	}
	for name, u := range urls {
		if r.Listeners[name] != u {
			return fmt.Errorf("/readyz shows listener %s at %q, the log at %q", name, r.Listeners[name], u)
		}
	}
	return nil
}

// Note names a part of the platform and what is the matter with it.
type Note struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Readiness is what /readyz answers.
type Readiness struct {
	Ready     bool              `json:"ready"`
	Listeners map[string]string `json:"listeners"`
	NotReady  []Note            `json:"notReady"`
	Degraded  []Note            `json:"degraded"`
}

// IsDegraded reports whether a part works with restrictions.
func (r Readiness) IsDegraded(name string) bool {
	for _, n := range r.Degraded {
		if n.Name == name {
			return true
		}
	}
	return false
}

// Ready asks /readyz.
func (p *Process) Ready() (status int, r Readiness, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL("ops")+"/readyz", nil)
	if err != nil {
		return 0, r, err
	}
	resp, err := plain.RoundTrip(req)
	if err != nil {
		return 0, r, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, r, err
	}
	return resp.StatusCode, r, json.Unmarshal(body, &r)
}

// URL is the base URL of a listener, such as "mp1" or "ops". It may change with a restart.
func (p *Process) URL(listener string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.urls[listener]
}

// Addr is the address of a listener as host:port.
func (p *Process) Addr(listener string) string {
	return strings.TrimPrefix(p.URL(listener), "http://")
}

// Log is what the process has written so far, to its output or its error output.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// CloseLog stops reading what the process writes, as a log collector does that dies.
func (p *Process) CloseLog() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.running.reader.Close()
}

// Pid is the id of the process.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return 0
	}
	return p.running.cmd.Process.Pid
}

// Running reports whether the process has not ended.
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

// Kill ends the process with SIGKILL.
func (p *Process) Kill() {
	p.tb.Helper()
	if r := p.take(); r != nil {
		_ = r.cmd.Process.Kill() // it may have ended already
		<-r.done
	}
}

// Stop ends the process with SIGTERM and returns how long that took, 0 when it was not running. The test fails unless it
// exits with 0 within StopWithin.
func (p *Process) Stop() time.Duration {
	p.tb.Helper()
	r := p.take()
	if r == nil {
		return 0
	}
	ended := r.ended()
	begin := time.Now()
	if !ended {
		_ = r.cmd.Process.Signal(syscall.SIGTERM) // it may end at this very moment
	}
	return p.await(r, begin, ended)
}

// take makes the caller the one who ends the process.
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
		_ = r.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
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

// Terminate sends SIGTERM and returns at once. The function it returns waits as Stop does.
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

// Ended waits until the process has ended by itself and returns its exit code.
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

// Restart starts the process again on the same data, after ending it with Stop where it runs. Its ports are others
// then, and its log is a new one.
func (p *Process) Restart(opts ...Option) {
	p.tb.Helper()
	p.Stop()
	for _, o := range opts {
		o(&p.spec)
	}
	p.launch()
}

// RestartOrEnd is Restart for a process that may refuse to start: code is its exit code then.
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

// Configure replaces the text of the configuration file.
func (p *Process) Configure(yaml string) {
	p.tb.Helper()
	if err := os.WriteFile(p.ConfigFile, []byte(yaml), 0o600); err != nil {
		p.tb.Fatalf("harness: %v", err)
	}
}

// Reload replaces the configuration file, sends SIGHUP, and returns when the log says what became of it: whether the new
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

// Outcome is how a program that was run to its end did.
type Outcome struct {
	Code   int
	Output string // what it wrote to its output and its error output
}

// Run runs a program to its end, with nothing but these arguments. Only options that say something about the environment
// matter.
func Run(tb testing.TB, program string, args []string, opts ...Option) Outcome {
	tb.Helper()
	var s spec
	for _, o := range opts {
		o(&s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(tb, program), args...)
	cmd.Env = environment(tb, s.env...)
	cmd.Dir = tb.TempDir()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		tb.Fatalf("%s %s did not end:\n%s", program, strings.Join(args, " "), out)
	}
	if err != nil && cmd.ProcessState == nil {
		tb.Fatalf("harness: run %s: %v", program, err)
	}
	return Outcome{Code: cmd.ProcessState.ExitCode(), Output: string(out)}
}

// logBuffer keeps what a process writes.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String is all of it.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// PeakMemory is the most resident memory the process has had so far, in bytes.
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
