package harness

import "testing"

// dnsDocument describes the DNS management API.
const dnsDocument = "mep_dns"

// DNSManagement returns a client of the DNS management API; for a secure process it has the token of the first manager. Its
// exchanges are checked against the OpenAPI document.
func (p *Process) DNSManagement(tb testing.TB) *Client {
	tb.Helper()
	c := p.client(tb, "dns-management", "", dnsDocument)
	if p.spec.secure {
		return c.With(p.Manager(tb).token)
	}
	return c
}

// UncheckedDNSManagement is like DNSManagement without a token and without checks.
func (p *Process) UncheckedDNSManagement(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "dns-management", "")
}
