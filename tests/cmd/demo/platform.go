package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/openmep/mep/tests/process"
)

// platform is a process of the platform's program. It can be restarted with the same data and ports.
type platform struct {
	binary, dir string // dir holds the settings, the data and the log
	running     *process.Process
	addresses   []string // arguments for the next start
	logs        string   // of the processes that have exited
}

// settings is the configuration file: the locations of the data, the data plane and another DNS server, and settings for apps
// on loopback and for short waits.
const settings = `dataDir: %q
dataplane:
  driver: webhook
  url: %q
  secretFile: %q
dns:
  zones: [mec.example, 2.0.192.in-addr.arpa]
  serviceZone: svc.mec.example   # registered services have names in it
  forward: [%q]   # where other names are known
callbacks:
  allowLoopback: true   # the servers of the apps are on this machine
gateway:
  allowLoopback: true   # and so are their services
auth:
  keys:
    notBefore: 3s       # a new key is published this long before it signs; 5m by default
`

func (p *platform) configFile() string { return filepath.Join(p.dir, "mep.yaml") }

// file returns the path of a file in the data directory.
func (p *platform) file(path ...string) string {
	return filepath.Join(append([]string{p.dir, "data"}, path...)...)
}

// configure writes the configuration file and, into a separate file, the secret shared with the controller. It returns the text
// of the former.
func (p *platform) configure(c *controller, u *upstream) (string, error) {
	secretFile := filepath.Join(p.dir, "controller.secret")
	if err := os.WriteFile(secretFile, []byte(c.secret), 0o600); err != nil {
		return "", err
	}
	text := fmt.Sprintf(settings, p.file(), c.url, secretFile, u.address)
	return text, os.WriteFile(p.configFile(), []byte(text), 0o600)
}

// start starts the program and waits until it is ready. It keeps the ports for the next start.
func (p *platform) start() error {
	running, err := process.StartSecure(p.binary, p.dir, append([]string{"--config", p.configFile()}, p.addresses...)...)
	if err != nil {
		return err
	}
	p.running = running
	p.addresses = nil
	for _, listener := range []string{"mp1", "mm5", "auth", "dns", "dns-management", "gateway", "gateway-management", "ops"} {
		_, address, _ := strings.Cut(running.URL(listener), "://")
		p.addresses = append(p.addresses, "--"+listener+"-listen", address)
	}
	return nil
}

// command runs a command of the program as the operator does, alongside the running platform.
func (p *platform) command(ctx context.Context, words ...string) (string, error) {
	return process.Output(ctx, p.binary, append(words, "--config", p.configFile())...)
}

// mp1 returns the URL of Mp1.
func (p *platform) mp1() string { return p.running.URL("mp1") }

// kill kills the process as kill -9 does and waits for its end. It does nothing when there is no process.
func (p *platform) kill() {
	if p.running != nil {
		p.running.Kill()
		p.keepLog()
	}
}

// stop stops the process with SIGTERM.
func (p *platform) stop() error {
	err := p.running.Stop()
	p.keepLog()
	return err
}

func (p *platform) keepLog() { p.logs += p.running.WholeLog() }

// logged returns what the platform has logged since its last start.
func (p *platform) logged() string {
	if p.running == nil {
		return ""
	}
	return p.running.Log()
}
