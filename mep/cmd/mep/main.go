// Command mep runs the whole MEC platform in one process.
package main

import (
	"os"

	"github.com/openmep/mep/mep"
)

func main() { os.Exit(mep.Platform().Main()) }
