package main

import (
	"path/filepath"
	"strings"

	"github.com/openmep/mep/tests/process"
)

// platform is a process of the platform's program. It can be started again on the same data and ports.
type platform struct {
	binary, dir string // dir holds the data and the log
	running     *process.Process
	addresses   []string // arguments for the next start
}

// start runs the program and waits until it is ready. The ports it got are kept for the next start.
func (p *platform) start() error {
	running, err := process.Start(p.binary, p.dir, append([]string{"--data-dir", filepath.Join(p.dir, "data")}, p.addresses...)...)
	if err != nil {
		return err
	}
	p.running = running
	p.addresses = []string{
		"--mp1-listen", strings.TrimPrefix(running.URL("mp1"), "http://"),
		"--ops-listen", strings.TrimPrefix(running.URL("ops"), "http://"),
	}
	return nil
}

// mp1 is the URL of Mp1.
func (p *platform) mp1() string { return p.running.URL("mp1") }

// kill ends the process as kill -9 does, and waits for its end. It does nothing when there is no process.
func (p *platform) kill() {
	if p.running != nil {
		p.running.Kill()
	}
}

// logged is what the platform has logged since its last start.
func (p *platform) logged() string {
	if p.running == nil {
		return ""
	}
	return p.running.Log()
}
