package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/mep"
)

// catalogue is a registry that records the registered metrics, including those without a value yet.
type catalogue struct {
	*prometheus.Registry
	rows map[string]metric
}

type metric struct{ kind, help, labels string }

var descPattern = regexp.MustCompile(`fqName: "([^"]+)", help: ("(?:[^"\\]|\\.)*"),.* variableLabels: \{([^}]*)\}`)

// Register implements prometheus.Registerer.
func (c *catalogue) Register(x prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 1024)
	x.Describe(descs)
	close(descs)
	for d := range descs {
		m := descPattern.FindStringSubmatch(d.String())
		if m == nil {
			return fmt.Errorf("no name in %s", d)
		}
		help, err := strconv.Unquote(m[2])
		if err != nil {
			return err
		}
		if strings.HasPrefix(m[1], "mep_") {
			c.rows[m[1]] = metric{kind: kindOf(m[1], x), help: help, labels: m[3]}
		}
	}
	return c.Registry.Register(x)
}

// kindOf returns the type of a metric, derived from its collector's type or, for our own collectors, from its name.
func kindOf(name string, x prometheus.Collector) string {
	kind := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", x), "*prometheus."), "Vec"))
	switch {
	case kind != "valuefunc" && !strings.Contains(kind, "."):
		return kind
	case strings.HasSuffix(name, "_total"):
		return "counter"
	}
	return "gauge"
}

// MustRegister implements prometheus.Registerer.
func (c *catalogue) MustRegister(xs ...prometheus.Collector) {
	for _, x := range xs {
		if err := c.Register(x); err != nil {
			panic(err)
		}
	}
}

const metricsHead = `# Metrics

<!-- Written by tools/docgen from the code. Do not edit; run make fix. -->

Served at ` + "`/metrics`" + ` on the operations listener, beside those of the Go runtime (` + "`go_*`" + `) and the process (` + "`process_*`" + `).

| metric | type | labels | meaning |
| --- | --- | --- | --- |
`

// metricsPage wires the platform without starting it and lists the registered metrics.
func metricsPage() ([]byte, error) {
	c := &catalogue{Registry: prometheus.NewRegistry(), rows: make(map[string]metric)}
	dir, err := os.MkdirTemp("", "docgen-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cfg := new(mep.Config)
	// Enable everything that has metrics of its own.
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("of nobody, for nothing"), 0o600); err != nil {
		return nil, err
	}
	flags := map[string]string{
		"mp1-listen": "127.0.0.1:0", "mm5-listen": "127.0.0.1:0", "auth-listen": "127.0.0.1:0",
		"dns-listen": "127.0.0.1:0", "dns-management-listen": "127.0.0.1:0",
		"gateway-listen": "127.0.0.1:0", "gateway-management-listen": "127.0.0.1:0", "data-dir": dir,
		"dataplane-driver": "webhook", "dataplane-url": "http://127.0.0.1:1/", "dataplane-secret-file": secret,
	}
	if err := settings.Load(cfg, settings.Sources{Flags: flags}, nil); err != nil {
		return nil, err
	}
	ctx := context.Background()
	env, err := daemon.NewEnv(ctx, &cfg.Common, "mep", []string{cfg.Common.OpsListen}, slog.New(slog.DiscardHandler), c)
	if err != nil {
		return nil, err
	}
	program, err := mep.Platform().Build(ctx, cfg, env)
	if err != nil {
		return nil, err
	}
	for _, p := range slices.Backward(program.Parts) {
		if err := p.Stop(ctx); err != nil {
			return nil, err
		}
	}
	c.rows["mep_build_info"] = metric{kind: "gauge", help: "Always 1; the label says which release this is.", labels: "version"}
	if len(c.rows) < 10 {
		return nil, errors.New("hardly any metrics found")
	}
	names := make([]string, 0, len(c.rows))
	for n := range c.rows {
		names = append(names, n)
	}
	slices.Sort(names)
	var b bytes.Buffer
	b.WriteString(metricsHead)
	for _, n := range names {
		m := c.rows[n]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", n, m.kind, strings.ReplaceAll(m.labels, ",", ", "), m.help)
	}
	return b.Bytes(), env.Audit.Close()
}
