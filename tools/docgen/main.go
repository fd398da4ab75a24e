// Command docgen generates the reference pages for settings and metrics from the code.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/mep"
)

func main() {
	check := flag.Bool("check", false, "fail when a page is not up to date instead of writing it")
	flag.Parse()
	if err := run(flag.Arg(0), *check); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

func run(dir string, check bool) error {
	metrics, err := metricsPage()
	if err != nil {
		return err
	}
	for name, page := range map[string][]byte{"configuration.md": configurationPage(), "metrics.md": metrics} {
		path := filepath.Join(dir, name)
		if !check {
			if err := os.WriteFile(path, page, 0o644); err != nil {
				return err
			}
			continue
		}
		present, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(present, page) {
			return fmt.Errorf("%s is not up to date: run make fix", path)
		}
	}
	return nil
}

const configurationHead = `# Configuration

<!-- Written by tools/docgen from the code. Do not edit; run make fix. -->

A setting has one name. In the file given with ` + "`--config`" + ` (or ` + "`MEP_CONFIG`" + `) it is written as below, or nested at its dots; in the
environment and as a flag it is spelt as its row says. Later sources override earlier ones: defaults, file, environment,
flags. Unknown names, wrong values and settings given twice in the file are refused. SIGHUP reads the file and the environment again and applies the
settings marked *reload*, all or nothing; the others need a restart. Durations are written ` + "`500ms`, `30s` or `1h`" + `. Lists are
separated by commas, or are YAML lists in the file.

In values of the file, ` + "`${NAME}`" + ` stands for an environment variable and ` + "`${NAME:-default}`" + ` for one that may be unset or empty; a variable
without default that is not set is refused. ` + "`$${`" + ` stands for ` + "`${`" + ` itself. Variables are put in after the file has been parsed: whatever they
hold, they cannot add settings, and they are checked like values that are written out. Inside of structured settings they become
numbers and truth values where such are wanted, and are strings elsewhere; where any type may stand, ` + "`!!int ${NAME}`" + ` makes a number.

| setting | flag | environment | type | default | with ` + "`--dev`" + ` | reload | meaning |
| --- | --- | --- | --- | --- | --- | --- | --- |
`

func configurationPage() []byte {
	var b bytes.Buffer
	b.WriteString(configurationHead)
	for _, s := range settings.Of(new(mep.Config)) {
		flagName, env := "`--"+s.Flag+"`", "`"+s.Env+"`"
		if s.FileOnly {
			flagName, env = "", ""
		}
		reload := ""
		if s.Reload {
			reload = "reload"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s | %s |\n", s.Path, flagName, env, s.Type,
			code(s.Default), code(s.DevDefault), reload, strings.ReplaceAll(s.Usage, "|", "\\|"))
	}
	b.WriteString("\n`storage.*` applies to the embedded etcd of `mep` only; `mepserver` has the other settings and needs `etcd.endpoints`.\n")
	return b.Bytes()
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
