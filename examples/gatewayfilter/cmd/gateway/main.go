// Command gateway is the gateway of the MEC platform with a custom filter.
package main

import (
	"os"

	"github.com/openmep/mep/examples/gatewayfilter/maintenance"
	"github.com/openmep/mep/gateway"
)

func main() { os.Exit(gateway.Daemon(maintenance.Definition()).Main()) }
