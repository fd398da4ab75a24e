// Package doctor looks for faults in an installation of the platform, whether it runs or not, and says for each what to do.
//
// It changes nothing: it creates no file or key, writes nothing to etcd, and does not disturb a running platform. An
// address that nobody serves is bound for an instant, to see whether it can be.
package doctor

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/openmep/mep/dnsagent"
	"github.com/openmep/mep/gateway"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/mepauth"
	"github.com/openmep/mep/mepserver"
)

// Installation is the installation to examine.
type Installation struct {
	// Common, Server, Auth, DNS and Gateway are valid settings.
	Common  *daemon.Config
	Server  *mepserver.Config
	Auth    *mepauth.Config
	DNS     *dnsagent.Config
	Gateway *gateway.Config
	// Reserve and Quota are storage.reserve and storage.quota, in bytes.
	Reserve, Quota int64
	// File is the configuration file; empty if there is none.
	File string
	// LockFile is the file that a running platform with an embedded etcd holds locked, and to which it writes the address of that etcd.
	LockFile string
}

// patience bounds each request over a network.
const patience = 3 * time.Second

// limit bounds the whole examination.
const limit = 5 * patience

// Examine runs all checks, which takes some seconds at most. The findings are in the order of the checks.
func Examine(ctx context.Context, in Installation) Report {
	return examine(ctx, in, thisMachine())
}

// examination is the state that the checks share.
type examination struct {
	Installation
	host    host
	up      platform
	issuers []func() answer
	// store connects to etcd on its first call. The error is errStopped if etcd is embedded and does not run.
	store func() (*etcd.Store, error)
	// members asks etcd's members for their status on its first call.
	members func() []member
}

// The names of the checks, in their order.
const (
	checkConfiguration = "configuration"
	checkData          = "data directory"
	checkCertificates  = "certificates"
	checkClocks        = "clocks"
	checkPorts         = "ports"
	checkEtcd          = "etcd"
	checkTokens        = "tokens"
	checkPlatform      = "platform"
	checkLimits        = "limits"
)

func examine(ctx context.Context, in Installation, h host) Report {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	common := *in.Common
	if dir, err := filepath.Abs(common.DataDir); err == nil {
		common.DataDir = dir
	}
	in.Common = &common
	x := &examination{Installation: in, host: h, up: look(ctx, in, h)}
	x.store = sync.OnceValues(x.connect)
	x.members = sync.OnceValue(func() []member { return x.ask(ctx) })
	for i := range common.Identity.Issuers {
		x.issuers = append(x.issuers, sync.OnceValue(func() answer { return x.keysOf(ctx, &common.Identity.Issuers[i]) }))
	}
	checks := []struct {
		name string
		run  func(context.Context, *findings)
	}{
		{checkConfiguration, x.configuration}, {checkData, x.data}, {checkCertificates, x.certificates}, {checkClocks, x.clocks},
		{checkPorts, x.ports}, {checkEtcd, x.etcd}, {checkTokens, x.tokens}, {checkPlatform, x.platform}, {checkLimits, x.limits},
	}
	found := make([]findings, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		found[i].check = c.name
		all.Go(func() { c.run(ctx, &found[i]) })
	}
	all.Wait()
	if store, err := x.store(); err == nil {
		_ = store.Close() // nothing was written
	}
	report := Report{}
	for i := range found {
		report = append(report, found[i].list...)
	}
	return report
}

// embedded reports whether the platform runs its own etcd.
func (x *examination) embedded() bool { return len(x.Common.EtcdEndpoints) == 0 }

// within returns a path in the data directory.
func (x *examination) within(elements ...string) string {
	return filepath.Join(append([]string{x.Common.DataDir}, elements...)...)
}
