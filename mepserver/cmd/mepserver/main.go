// Command mepserver is the Mp1 and Mm5 server of the MEC platform, on an etcd cluster.
package main

import (
	"os"

	"github.com/openmep/mep/mepserver"
)

func main() { os.Exit(mepserver.Daemon().Main()) }
