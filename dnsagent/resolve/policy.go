package resolve

import (
	"net/netip"

	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/table"
)

// Policy says who is answered how. It is replaced as a whole.
type Policy struct {
	// Query are the networks whose clients may ask at all; nil: every client. Recursion are those whose clients may have questions
	// forwarded.
	Query, Recursion *protect.Map[struct{}]
	// Rotate lets the records of an RRset take turns in being the first.
	Rotate bool
	// UDPSize is the largest answer over UDP in octets.
	UDPSize uint16
	// Cookies are given and checked; nil: they are ignored.
	Cookies *protect.Cookies
	// Rates limits responses over UDP, except to the networks of Unlimited; nil: there is no limit.
	Rates     *protect.Rates
	Unlimited *protect.Map[struct{}]
}

func within(m *protect.Map[struct{}], addr netip.Addr) bool {
	if m == nil {
		return true
	}
	_, ok := m.Lookup(addr)
	return ok
}

// Records are what is answered from, and who sees what of it. They are replaced together.
type Records struct {
	*table.Table
	// Clients says which view a client belongs to; nil: none. Views are the names of the views; that of number 1 comes first.
	Clients *protect.Map[table.View]
	Views   []string

	generation uint64 // set by SetRecords
}

// view is the view a client belongs to.
func (r *Records) view(addr netip.Addr) table.View {
	if r.Clients == nil {
		return table.Everyone
	}
	v, _ := r.Clients.Lookup(addr)
	return v
}
