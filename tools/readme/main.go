// Command readme runs the shell commands of a Markdown file against a platform of its own and compares their output with the
// output in the file.
//
// Blocks fenced as "sh test" are run in order in one shell, with the variables MP1 and OPS set to the listeners' URLs. A
// following "text output" block holds the expected output, in which … stands for any text.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/openmep/mep/tests/process"
)

func main() {
	bin := flag.String("bin", "bin", "where the programs are")
	flag.Parse()
	if err := run(*bin, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "readme:", err)
		os.Exit(1)
	}
}

// step is a block of commands and its expected output; want is nil when the file has none.
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
	platform, err := process.Start(filepath.Join(bin, "mep"), dir, "--data-dir", filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer platform.Kill()
	outputs, err := runAll(ctx, steps, platform.URL("mp1"), platform.URL("ops"))
	if err != nil {
		return err
	}
	for i, s := range steps {
		if s.want != nil && !matches(*s.want, outputs[i]) {
			return fmt.Errorf("%s:%d: the commands printed\n%s\nbut the file says\n%s", file, s.line, outputs[i], *s.want)
		}
	}
	if err := platform.Stop(); err != nil {
		return err
	}
	fmt.Printf("%s: %d blocks of commands ran as it says\n", file, len(steps))
	return nil
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

// matches reports whether got matches want, in which … stands for any text.
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
