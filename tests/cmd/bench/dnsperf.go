package main

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// perf generates load with dnsperf, or with the bench's own generator if dnsperf is not installed.
type perf struct {
	program   string // empty: the built-in generator
	file      string // queries for dnsperf
	questions []question
}

// newPerf returns a load generator for the names of a zone.
func newPerf(o *options, z *zone) (*perf, error) {
	p := &perf{}
	var err error
	if p.questions, err = z.questions(); err != nil {
		return nil, err
	}
	if p.program, err = exec.LookPath("dnsperf"); errors.Is(err, exec.ErrNotFound) {
		return p, nil
	}
	p.file, err = z.queryFile(o)
	return p, err
}

// underWay is the number of queries that dnsperf keeps in flight. With more, a server that does not enlarge its socket buffers
// drops some.
const underWay = 200

// String returns the name of the load generator.
func (p *perf) String() string {
	if p.program == "" {
		return "the bench's own generator of load (there is no dnsperf)"
	}
	return fmt.Sprintf("dnsperf with 16 sockets and %d questions under way", underWay)
}

// run queries a server for d, as fast as it responds, and returns the outcomes and the number of responses per second.
func (p *perf) run(addr string, d time.Duration) (t tally, rate float64, err error) {
	if p.program == "" {
		return flood(addr, p.questions, d)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return t, 0, err
	}
	seconds := strconv.Itoa(int(max(d, time.Second) / time.Second))
	out, err := exec.Command(p.program, "-s", host, "-p", port, "-d", p.file, "-l", seconds,
		"-c", "16", "-q", strconv.Itoa(underWay), "-T", "1", "-t", "1").CombinedOutput()
	if err != nil {
		return t, 0, fmt.Errorf("dnsperf: %w: %s", err, out)
	}
	return parsePerf(out)
}

var perfFigures = regexp.MustCompile(`(?s)Queries completed: +(\d+).*Queries lost: +(\d+).*Response codes: +NOERROR \d+ \(100\.00%\).*` +
	`Queries per second: +([\d.]+)`)

// parsePerf parses the output of dnsperf.
func parsePerf(out []byte) (t tally, rate float64, err error) {
	found := perfFigures.FindSubmatch(out)
	if found == nil {
		return t, 0, fmt.Errorf("not all answers that dnsperf got were without error: %s", out)
	}
	var errs [3]error
	t.answered, errs[0] = strconv.Atoi(string(found[1]))
	t.lost, errs[1] = strconv.Atoi(string(found[2]))
	rate, errs[2] = strconv.ParseFloat(string(found[3]), 64)
	return t, rate, errors.Join(errs[:]...)
}
