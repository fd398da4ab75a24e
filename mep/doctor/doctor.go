// Package doctor looks for faults in an installation of the platform, whether it runs or not, and says for each what to do.
//
// It changes nothing: it makes no file and no key, writes nothing to etcd, and lets a running platform be. A listener that
// nobody serves is bound for an instant, to see whether it can be.
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

// Installation is what is examined.
type Installation struct {
	// Common, Server, Auth, DNS and Gateway are settings that are valid.
	Common  *daemon.Config
	Server  *mepserver.Config
	Auth    *mepauth.Config
	DNS     *dnsagent.Config
	Gateway *gateway.Config
	// Reserve and Quota are storage.reserve and storage.quota, in bytes.
	Reserve, Quota int64
	// File is the configuration file; empty when there is none.
	File string
	// LockFile is what a running platform with an embedded etcd holds locked, and in which it leaves the address of that.
	LockFile string
}

// patience bounds each question that goes over a network.
const patience = 3 * time.Second

// limit bounds the whole examination.
const limit = 5 * patience

// Examine looks at everything, which takes some seconds at most. The findings are in the order of the checks.
func Examine(ctx context.Context, in Installation) Report {
	return examine(ctx, in, thisMachine())
}

// examination is what the checks share.
type examination struct {
	Installation
	host    host
	up      platform
	issuers []func() answer
	// store connects to etcd when it is called first. The error is errStopped when etcd is embedded and does not run.
	store func() (*etcd.Store, error)
	// members asks etcd's members how they are, when it is called first.
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

// embedded reports whether the platform brings its own etcd.
func (x *examination) embedded() bool { return len(x.Common.EtcdEndpoints) == 0 }

// within is a path in the data directory.
func (x *examination) within(elements ...string) string {
	return filepath.Join(append([]string{x.Common.DataDir}, elements...)...)
}
