// Package process runs the built programs for tests, the demo and the benchmarks.
package process

import (
	"bufio"
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
	"sync"
	"syscall"
	"time"
)

// Process is a running program of the platform.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu    sync.Mutex
	ops   string
	lines []string
	urls  map[string]string
	log   io.Writer
	seen  chan struct{}
}

// readyTimeout bounds a start.
const readyTimeout = 30 * time.Second

// Start runs a program with the arguments, in development mode with free ports, and returns when it is ready. What it logs is
// also written to log unless that is nil.
func Start(program string, log io.Writer, args ...string) (*Process, error) {
	args = append([]string{"run", "--dev", "--mp1-listen", ":0", "--ops-listen", ":0", "--log-format", "json"}, args...)
	p := &Process{cmd: exec.Command(program, args...), done: make(chan struct{}), log: log, seen: make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.read(stderr)
	if err := p.awaitReady(); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%w; its log:\n%s", err, p.Log())
	}
	return p, nil
}

// read keeps the log, but not the lines of single requests, and finds out where the operations listener is.
func (p *Process) read(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if p.log != nil {
			_, _ = fmt.Fprintln(p.log, line)
		}
		if strings.Contains(line, `"msg":"request"`) {
			continue
		}
		var l struct{ Msg, Listener, URL string }
		_ = json.Unmarshal([]byte(line), &l)
		p.mu.Lock()
		p.lines = append(p.lines, line)
		if l.Msg == "listening" && l.Listener == "ops" && p.ops == "" {
			p.ops = l.URL
			close(p.seen)
		}
		p.mu.Unlock()
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

func (p *Process) awaitReady() error {
	deadline := time.After(readyTimeout)
	select {
	case <-p.seen:
	case <-p.done:
		return fmt.Errorf("%s ended: %w", p.cmd.Path, p.err)
	case <-deadline:
		return errors.New("no operations listener in time")
	}
	for {
		r, err := p.ready()
		if err == nil && r.Ready {
			p.urls = r.Listeners
			return nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-p.done:
			return fmt.Errorf("%s ended: %w", p.cmd.Path, p.err)
		case <-deadline:
			return fmt.Errorf("not ready in time: %+v %w", r, err)
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

// Log is what the program logged so far, without the lines of single requests.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
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
func (p *Process) ResidentBytes() (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
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
func (p *Process) CPU() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
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
