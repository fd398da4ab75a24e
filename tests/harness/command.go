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

// KillAfter starts a program and ends it with SIGKILL after a time, unless it has ended before.
func KillAfter(tb testing.TB, program string, after time.Duration, args ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), after)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(tb, program), args...)
	cmd.Env = environment(tb)
	_ = cmd.Run() // it was killed
}
