// Command coredns is CoreDNS with the plugins that the benchmarks need, to be compared with. It is a module of its own, outside the
// workspace: nothing else is to depend on what CoreDNS depends on.
package main

import (
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/hosts"

	"github.com/coredns/coredns/coremain"
)

func main() { coremain.Run() }
