// Package process runs the built programs for tests, the demo and the benchmarks.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a running program of the platform.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  *os.File
	text []byte // of the log, once the process has ended
	ops  string
	urls map[string]string
}

// readyTimeout bounds a start.
const readyTimeout = 30 * time.Second

// Start runs the program mep in development mode with free ports and returns when it is ready. Arguments override these, and
// the environment's settings of the platform do not count. It logs into a file in memory, or in dir.
func Start(program, dir string, args ...string) (*Process, error) {
	return start(program, dir, append([]string{"--dev"}, args...))
}

// StartSecure runs it as Start does, but as on a network that is not trusted: with TLS, and for callers with a token. It listens
// on loopback all the same. Its operations listener, where health and metrics are open, is without TLS.
func StartSecure(program, dir string, args ...string) (*Process, error) {
	return start(program, dir, args)
}

func start(program, dir string, args []string) (*Process, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// A log on a disk would be written back by the kernel while something is measured.
	log, err := os.CreateTemp("/dev/shm", "mep-log-*")
	if err != nil {
		log, err = os.CreateTemp(dir, "log-*")
	}
	if err != nil {
		return nil, err
	}
	ops, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	for i, a := range args[:max(0, len(args)-1)] {
		if a == "--ops-listen" {
			ops = args[i+1]
		}
	}
	args = append([]string{
		"run", "--mp1-listen", "127.0.0.1:0", "--mm5-listen", "127.0.0.1:0", "--auth-listen", "127.0.0.1:0",
		"--dns-listen", "127.0.0.1:0", "--dns-management-listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0",
		"--gateway-management-listen", "127.0.0.1:0", "--ops-listen", ops, "--log-format", "json",
	}, args...)
	p := &Process{cmd: exec.Command(program, args...), done: make(chan struct{}), log: log, ops: "http://" + ops}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = log, log, environment()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		p.err = p.cmd.Wait()
		p.text, _ = os.ReadFile(log.Name())
		_ = log.Close()
		_ = os.Remove(log.Name())
		close(p.done)
	}()
	if err := p.awaitReady(); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%w; its log:\n%s", err, p.Log())
	}
	return p, nil
}

func (p *Process) awaitReady() error {
	deadline := time.After(readyTimeout)
	var last error
	for {
		r, err := p.ready()
		if err == nil && r.Ready {
			p.urls = r.Listeners
			return nil
		}
		last = err
		select {
		case <-time.After(2 * time.Millisecond):
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %s", p.cmd.Path, p.cmd.ProcessState)
		case <-deadline:
			return errors.Join(errors.New("not ready in time"), last)
		}
	}
}

type readiness struct {
	Ready     bool
	Listeners map[string]string
}

func (p *Process) ready() (readiness, error) {
	var r readiness
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.ops+"/readyz", nil)
	if err != nil {
		return r, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

// URL is the base URL of a listener.
func (p *Process) URL(listener string) string { return p.urls[listener] }

// WholeLog is what the program logged so far.
func (p *Process) WholeLog() string {
	select {
	case <-p.done:
		return string(p.text)
	default:
	}
	text, err := os.ReadFile(p.log.Name())
	if err != nil { // it has just ended
		<-p.done
		return string(p.text)
	}
	return string(text)
}

// Log is WholeLog without the lines of single requests.
func (p *Process) Log() string {
	var kept strings.Builder
	for line := range strings.Lines(p.WholeLog()) {
		if !strings.Contains(line, `"msg":"request"`) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill ends the program as kill -9 does.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop ends the program by SIGTERM. It fails when that takes longer than 5 s or the exit code is not 0.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(5 * time.Second):
		p.Kill()
		return errors.New("the program did not end within 5 s of SIGTERM")
	}
}

// ResidentBytes is the resident memory of the program.
func (p *Process) ResidentBytes() (int64, error) { return ResidentBytes(p.Pid()) }

// ResidentBytes is the resident memory of a process.
func ResidentBytes(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// CPU is the processor time the program has used.
func (p *Process) CPU() (time.Duration, error) { return CPU(p.Pid()) }

// CPU is the processor time a process has used.
func CPU(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, the only field that may hold spaces, ends in the last parenthesis.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ is 100 on Linux
}

// Metric reads a metric without labels.
func (p *Process) Metric(name string) (float64, error) {
	resp, err := http.Get(p.URL("ops") + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}
