package doctor

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
)

// serviceDomain returns the domain below which services have host names at the gateway; "" if they have none.
func (x *examination) serviceDomain() string {
	if x.Gateway == nil || !x.Gateway.Enabled() {
		return ""
	}
	return x.Gateway.ServiceDomain
}

// names looks for configured addresses below the service domain that are valid nevertheless: where the daemons run separately, they
// may be those of the platform itself.
func (x *examination) names(f *findings) {
	if x.serviceDomain() == "" {
		return
	}
	for _, u := range x.Gateway.Mp1URLs {
		x.outside(f, "gateway.mp1Urls", u)
	}
	for _, u := range x.Gateway.AuthURLs {
		x.outside(f, "gateway.authUrls", u)
	}
	for i := range x.Common.Identity.Issuers {
		x.outside(f, "jwksUrl of an issuer", x.Common.Identity.Issuers[i].JWKSURL)
	}
}

// ownIssuers checks the issuer names of token services. Daemons on other machines may have set them, or this one from the name of the
// machine.
func (x *examination) ownIssuers(ctx context.Context, f *findings, store *etcd.Store) {
	if x.serviceDomain() == "" {
		return
	}
	resp, err := store.Do(ctx, clientv3.OpGet(state.PrefixIssuers, clientv3.WithPrefix()))
	if err != nil {
		f.note("the issuer", "is not looked at: it cannot be read ("+err.Error()+")")
		return
	}
	for _, kv := range resp.Get().Kvs {
		if rec, err := state.Decode[state.Issuer](kv.Value); err == nil && rec.Replaced.IsZero() {
			x.outside(f, "the issuer "+rec.Issuer, rec.Issuer)
		}
	}
}

// outside warns of an address that might lead to a service.
func (x *examination) outside(f *findings, subject, url string) {
	if host, below := gateway.HostBelow(url, x.serviceDomain()); below {
		f.warn(subject, "is at "+host+", below gateway.serviceDomain, where apps choose the names: one that offers a service of that name gets what is sent there by way of the gateway",
			"use a name that is not below "+x.serviceDomain()+", or take another domain for services")
	}
}
