package harness

import "testing"

// dnsDocument describes what is at the listener of the DNS management.
const dnsDocument = "mep_dns"

// DNSManagement returns a client of the DNS management with what it wants of who manages: in operation the token of the first
// manager. Its exchanges are checked against the OpenAPI document.
func (p *Process) DNSManagement(tb testing.TB) *Client {
	tb.Helper()
	c := p.client(tb, "dns-management", "", dnsDocument)
	if p.spec.secure {
		return c.With(p.Manager(tb).token)
	}
	return c
}

// UncheckedDNSManagement is DNSManagement without a token, and whose exchanges are not checked.
func (p *Process) UncheckedDNSManagement(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "dns-management", "")
}
