// Command gateway is the way consumers reach the services of the MEC platform, on an etcd cluster.
package main

import (
	"os"

	"github.com/openmep/mep/gateway"
)

func main() { os.Exit(gateway.Daemon().Main()) }
