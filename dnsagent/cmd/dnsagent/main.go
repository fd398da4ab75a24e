// Command dnsagent is the DNS server of the MEC platform, on an etcd cluster.
package main

import (
	"os"

	"github.com/openmep/mep/dnsagent"
)

func main() { os.Exit(dnsagent.Daemon().Main()) }
