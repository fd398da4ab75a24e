package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/openmep/mep/tests/process"
)

// errMissing reports that a server to compare with is not installed.
var errMissing = errors.New("not installed")

// startBare starts this program as a bare miekg/dns server.
func startBare(o *options, z *zone) (*dnsServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	file, err := z.hostsFile(o)
	if err != nil {
		return nil, err
	}
	addr, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	return startDNS(o, "a bare miekg/dns server", addr, z, self, "yardstick-dns", addr, file)
}

// corefile makes CoreDNS answer from a hosts file. On two cores, its multisocket plugin makes it no faster.
const corefile = `.:%s {
	bind 127.0.0.1
	hosts %s {
		ttl %d
		reload 0
	}
	errors
}
`

// startCoreDNS starts the CoreDNS that make bench builds.
func startCoreDNS(o *options, z *zone) (*dnsServer, error) {
	program := filepath.Join(filepath.Dir(o.mep), "bench-coredns")
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("%w: %s (make bench builds it where it can)", errMissing, program)
	}
	hosts, err := z.hostsFile(o)
	if err != nil {
		return nil, err
	}
	addr, port, err := freePort()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.dir, uuid.NewString())
	if err := os.WriteFile(file, fmt.Appendf(nil, corefile, port, hosts, zoneTTL), 0o600); err != nil {
		return nil, err
	}
	return startDNS(o, "CoreDNS (hosts)", addr, z, program, "-conf", file)
}

// nsdConf makes NSD answer from a zone file with two processes and without response rate limiting.
const nsdConf = `server:
  ip-address: 127.0.0.1
  port: %s
  server-count: 2
  reuseport: yes
  username: ""
  zonesdir: %q
  database: ""
  pidfile: ""
  xfrdfile: ""
  zonelistfile: %[3]q
  minimal-responses: yes
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: %[4]s
  zonefile: %[5]s
`

// startNSD starts NSD, if it is installed.
func startNSD(o *options, z *zone) (*dnsServer, error) {
	program, err := exec.LookPath("nsd")
	if err != nil {
		return nil, fmt.Errorf("%w: nsd", errMissing)
	}
	master, err := z.masterFile(o)
	if err != nil {
		return nil, err
	}
	addr, port, err := freePort()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.dir, uuid.NewString())
	text := fmt.Appendf(nil, nsdConf, port, o.dir, filepath.Join(o.dir, "nsd-zones"), z.origin, master)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	return startDNS(o, "NSD", addr, z, program, "-d", "-c", file)
}
