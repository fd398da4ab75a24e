package pipeline

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/table"
)

// Merge returns p with what it leaves open filled in from base. externalAuth and spikeArrest are each taken as a whole; a flag is set if it
// is set in either.
func Merge(p, base gateway.Policy) gateway.Policy {
	if p.Authentication == nil {
		p.Authentication = base.Authentication
	}
	if p.Scopes == nil {
		p.Scopes = base.Scopes
	}
	p.KeepAuthorization = p.KeepAuthorization || base.KeepAuthorization
	if p.Claims == nil {
		p.Claims = base.Claims
	}
	if p.Rules == nil {
		p.Rules = base.Rules
	}
	p.Default = cmp.Or(p.Default, base.Default)
	if p.Owners == nil {
		p.Owners = base.Owners
	}
	p.Sharing = cmp.Or(p.Sharing, base.Sharing)
	p.ExternalAuth = cmp.Or(p.ExternalAuth, base.ExternalAuth)
	if p.Quotas == nil {
		p.Quotas = base.Quotas
	}
	p.SpikeArrest = cmp.Or(p.SpikeArrest, base.SpikeArrest)
	p.Concurrent = cmp.Or(p.Concurrent, base.Concurrent)
	p.WhenStoreAway = cmp.Or(p.WhenStoreAway, base.WhenStoreAway)
	p.MaxBody = cmp.Or(p.MaxBody, base.MaxBody)
	p.Timeouts = gateway.Timeouts{
		Connect:  cmp.Or(p.Timeouts.Connect, base.Timeouts.Connect),
		Response: cmp.Or(p.Timeouts.Response, base.Timeouts.Response),
		Idle:     cmp.Or(p.Timeouts.Idle, base.Timeouts.Idle),
		Total:    cmp.Or(p.Timeouts.Total, base.Timeouts.Total),
	}
	u, b := &p.Upstream, &base.Upstream
	u.CA = cmp.Or(u.CA, b.CA)
	u.ClientCertificate = cmp.Or(u.ClientCertificate, b.ClientCertificate)
	u.ServerName = cmp.Or(u.ServerName, b.ServerName)
	u.Proxy = cmp.Or(u.Proxy, b.Proxy)
	u.Retries = cmp.Or(u.Retries, b.Retries)
	u.HealthCheck = cmp.Or(u.HealthCheck, b.HealthCheck)
	u.EjectAfter = cmp.Or(u.EjectAfter, b.EjectAfter)
	u.EjectFor = cmp.Or(u.EjectFor, b.EjectFor)
	u.SlowStart = cmp.Or(u.SlowStart, b.SlowStart)
	p.Headers = mergeHeaders(p.Headers, base.Headers)
	if p.ExcludeFilters == nil {
		p.ExcludeFilters = base.ExcludeFilters
	}
	return p
}

func mergeHeaders(h, base gateway.Headers) gateway.Headers {
	h.Forwarded = cmp.Or(h.Forwarded, base.Forwarded)
	h.XForwarded = cmp.Or(h.XForwarded, base.XForwarded)
	h.Via = cmp.Or(h.Via, base.Via)
	h.RequestID = cmp.Or(h.RequestID, base.RequestID)
	if h.Set == nil {
		h.Set = base.Set
	}
	if h.Remove == nil {
		h.Remove = base.Remove
	}
	if h.SetResponse == nil {
		h.SetResponse = base.SetResponse
	}
	if h.RemoveResponse == nil {
		h.RemoveResponse = base.RemoveResponse
	}
	return h
}

// plan returns what a policy does to header fields.
func plan(p *gateway.Policy, defaults *table.Plan) table.Plan {
	h := &p.Headers
	return table.Plan{
		Forwarded: or(h.Forwarded, defaults.Forwarded), XForwarded: or(h.XForwarded, defaults.XForwarded),
		Via: or(h.Via, defaults.Via), RequestID: or(h.RequestID, defaults.RequestID),
		KeepAuthorization: p.KeepAuthorization,
		Claims:            fields(p.Claims), Set: fields(h.Set), SetResponse: fields(h.SetResponse),
		Remove: names(h.Remove), RemoveResponse: names(h.RemoveResponse),
	}
}

func or(v *bool, otherwise bool) bool {
	if v != nil {
		return *v
	}
	return otherwise
}

func fields(m map[string]string) []table.Field {
	var list []table.Field
	for name, value := range m {
		list = append(list, table.Field{Name: http.CanonicalHeaderKey(name), Value: value})
	}
	slices.SortFunc(list, func(a, b table.Field) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func names(list []string) []string {
	out := make([]string, 0, len(list))
	for _, name := range list {
		out = append(out, http.CanonicalHeaderKey(name))
	}
	return out
}
