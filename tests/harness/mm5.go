package harness

import "testing"

// mm5Documents describe the APIs at the Mm5 listener.
var mm5Documents = []string{"mm5", "mep_auth"}

// Mm5 returns a client of the Mm5 listener without a token, whose exchanges are checked against the OpenAPI documents.
func (p *Process) Mm5(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "mm5", "", mm5Documents...)
}

// UncheckedMm5 is like Mm5 without checks, for very large exchanges and endless ones.
func (p *Process) UncheckedMm5(tb testing.TB) *Client {
	tb.Helper()
	return p.client(tb, "mm5", "")
}

// MEPM is like Mm5 with the credentials of a MEC platform manager: for a secure process, the token of the first one.
func (p *Process) MEPM(tb testing.TB) *Client {
	tb.Helper()
	c := p.Mm5(tb)
	if p.spec.secure {
		return c.With(p.Manager(tb).token)
	}
	return c
}
