package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/openmep/mep/tests/process"
)

// cpuOf returns the processor time of a process and its children.
func cpuOf(pid int) (time.Duration, error) {
	sum, err := process.CPU(pid)
	if err != nil {
		return 0, err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return sum, nil //nolint:nilerr // the kernel does not report children
	}
	for field := range strings.FieldsSeq(string(children)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		more, err := cpuOf(child)
		if err != nil {
			return 0, err
		}
		sum += more
	}
	return sum, nil
}

// udpDrops returns the number of packets that the sockets on a port had no room for.
func udpDrops(port int) (n int, err error) {
	table, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return 0, err
	}
	const local, drops = 1, 12
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) <= drops || !strings.HasSuffix(fields[local], fmt.Sprintf(":%04X", port)) {
			continue
		}
		dropped, err := strconv.Atoi(fields[drops])
		if err != nil {
			return 0, err
		}
		n += dropped
	}
	return n, nil
}
