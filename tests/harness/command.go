package harness

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Outcome is the result of a program that has exited.
type Outcome struct {
	Code   int
	Output string // stdout and stderr
}

// Run runs a program until it exits, with only these arguments. Only options that concern the environment have an effect.
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

// logBuffer collects the output of a process.
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

// String returns everything written so far.
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

// KillAfter starts a program and kills it with SIGKILL after a time, unless it has exited before.
func KillAfter(tb testing.TB, program string, after time.Duration, args ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), after)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(tb, program), args...)
	cmd.Env = environment(tb)
	_ = cmd.Run() // it was killed
}
