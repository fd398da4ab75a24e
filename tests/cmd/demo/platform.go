package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// platform is a process of the platform's program. It can be started again on the same data and ports.
type platform struct {
	binary, dir          string // dir holds the data and the log
	mp1Listen, opsListen string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	exit error         // how it ended
	mp1  string        // URL of Mp1
}

// start runs the program and waits until it is ready. The ports it got are kept for the next start.
func (p *platform) start(ctx context.Context) error {
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"run", "--dev", "--data-dir", filepath.Join(p.dir, "data"), "--mp1-listen", p.mp1Listen, "--ops-listen", p.opsListen}
	cmd := exec.Command(p.binary, args...) //nolint:gosec // the program is what the user asks for
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MEP_") })
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.done = cmd, make(chan struct{})
	go func() {
		p.exit = cmd.Wait()
		close(p.done)
	}()

	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("the platform was not ready within 10 s"))
	defer cancel()
	for !p.ready() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.done:
			return fmt.Errorf("the platform ended before it was ready: %s", cmd.ProcessState)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// opsListener is how the log tells where the operations listener is.
var opsListener = regexp.MustCompile(`listener=ops url=http://(127\.0\.0\.1:\d+)`)

func (p *platform) ready() bool {
	found := opsListener.FindStringSubmatch(p.logged())
	if found == nil {
		return false
	}
	resp, err := (&http.Client{Timeout: time.Second}).Get("http://" + found[1] + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var answer struct {
		Ready     bool
		Listeners map[string]string
	}
	if json.NewDecoder(resp.Body).Decode(&answer) != nil || !answer.Ready {
		return false
	}
	p.mp1 = answer.Listeners["mp1"]
	p.mp1Listen, p.opsListen = strings.TrimPrefix(p.mp1, "http://"), found[1]
	return true
}

// kill ends the process as kill -9 does, and waits for its end. It does nothing when there is no process.
func (p *platform) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// stop asks the process to end and expects it to do so in good order within 5 s.
func (p *platform) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.exit
	case <-time.After(5 * time.Second):
		return errors.New("still there after 5 s")
	}
}

func (p *platform) logFile() string { return filepath.Join(p.dir, "log") }

func (p *platform) logged() string {
	text, _ := os.ReadFile(p.logFile())
	return string(text)
}
