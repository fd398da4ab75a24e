// Command readme runs the shell commands of a Markdown file against a platform of its own, and compares what they print
// with what the file says they print.
//
// Blocks fenced as "sh test" are run in one shell, in their order, with the variables MP1 and OPS set to the listeners' URLs.
// A "text output" block behind one holds what it prints; … in it stands for anything.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	bin := flag.String("bin", "bin", "where the programs are")
	flag.Parse()
	if err := run(*bin, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "readme:", err)
		os.Exit(1)
	}
}

// step is a block of commands and what they print; want is nil when the file does not say.
type step struct {
	commands string
	want     *string
	line     int
}

var fence = regexp.MustCompile("(?ms)^```(sh test|text output)\n(.*?)^```$")

func parse(doc string) []step {
	var steps []step
	for _, m := range fence.FindAllStringSubmatchIndex(doc, -1) {
		kind, body := doc[m[2]:m[3]], doc[m[4]:m[5]]
		if kind == "sh test" {
			steps = append(steps, step{commands: body, line: 1 + strings.Count(doc[:m[0]], "\n")})
		} else if len(steps) > 0 && steps[len(steps)-1].want == nil {
			steps[len(steps)-1].want = &body
		}
	}
	return steps
}

func run(bin, file string) error {
	doc, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	steps := parse(string(doc))
	if len(steps) == 0 {
		return fmt.Errorf("%s has no \"sh test\" blocks", file)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "mep-readme-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mp1, ops, stop, err := startPlatform(ctx, filepath.Join(bin, "mep"), dir)
	if err != nil {
		return err
	}
	defer stop()
	outputs, err := runAll(ctx, steps, mp1, ops)
	if err != nil {
		return err
	}
	for i, s := range steps {
		if s.want != nil && !matches(*s.want, outputs[i]) {
			return fmt.Errorf("%s:%d: the commands printed\n%s\nbut the file says\n%s", file, s.line, outputs[i], *s.want)
		}
	}
	fmt.Printf("%s: %d blocks of commands ran as it says\n", file, len(steps))
	return nil
}

// startPlatform runs the platform on free ports.
func startPlatform(ctx context.Context, program, dir string) (mp1, ops string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", nil, err
	}
	ops = "http://" + ln.Addr().String()
	if err := ln.Close(); err != nil {
		return "", "", nil, err
	}
	cmd := exec.CommandContext(ctx, program, "run", "--dev", "--data-dir", dir, "--mp1-listen", ":0",
		"--ops-listen", strings.TrimPrefix(ops, "http://"), "--log-level", "warn")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if mp1 = ready(ctx, ops); mp1 != "" {
			return mp1, ops, stop, nil
		}
	}
	stop()
	return "", "", nil, fmt.Errorf("%s was not ready in time", program)
}

func ready(ctx context.Context, ops string) (mp1 string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ops+"/readyz", nil)
	if err != nil {
		return ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var r struct {
		Ready     bool
		Listeners map[string]string
	}
	if json.NewDecoder(resp.Body).Decode(&r) != nil || !r.Ready {
		return ""
	}
	return r.Listeners["mp1"]
}

// mark separates the outputs of the blocks.
const mark = "--8<-- end of block"

func runAll(ctx context.Context, steps []step, mp1, ops string) ([]string, error) {
	var script strings.Builder
	for _, s := range steps {
		script.WriteString(s.commands)
		fmt.Fprintf(&script, "\necho %q\n", mark)
	}
	cmd := exec.CommandContext(ctx, "bash", "-eu", "-c", script.String())
	cmd.Env = append(os.Environ(), "MP1="+mp1, "OPS="+ops)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	outputs := strings.Split(out.String(), mark+"\n")
	if err != nil {
		n := min(len(outputs), len(steps)) - 1
		return nil, fmt.Errorf("the block at line %d failed: %w\n%s%s", steps[n].line, err, outputs[n], errs.String())
	}
	return outputs, nil
}

// matches compares an output with what is wanted, where … stands for anything.
func matches(want, got string) bool {
	var pattern strings.Builder
	for i, part := range strings.Split(strings.TrimSpace(want), "…") {
		if i > 0 {
			pattern.WriteString(`(?s:.*?)`)
		}
		pattern.WriteString(regexp.QuoteMeta(part))
	}
	return regexp.MustCompile(`\A` + pattern.String() + `\z`).MatchString(strings.TrimSpace(strings.ReplaceAll(got, "\r", "")))
}
