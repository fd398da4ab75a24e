// Command mepauth is the token service of the MEC platform, on an etcd cluster.
package main

import (
	"os"

	"github.com/openmep/mep/mepauth"
)

func main() { os.Exit(mepauth.Daemon().Main()) }
