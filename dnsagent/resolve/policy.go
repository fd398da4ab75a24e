package resolve

import (
	"net/netip"

	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/table"
)

// Policy says which clients are answered, and how. It is replaced as a whole.
type Policy struct {
	// Query holds the networks whose clients may ask at all, Recursion those whose clients may have questions forwarded; nil: every
	// client.
	Query, Recursion *protect.Map[struct{}]
	// Rotate makes the records of an RRset take turns at coming first.
	Rotate bool
	// UDPSize is the largest response over UDP in octets.
	UDPSize uint16
	// Cookies creates and checks DNS cookies; if nil, cookies are ignored.
	Cookies *protect.Cookies
	// Rates limits responses over UDP, except to the networks in Unlimited; if nil, there is no limit.
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

// Records are the records to answer from, and who sees which of them. They are replaced together.
type Records struct {
	*table.Table
	// Clients says which view a client belongs to; if nil, none. Views are the names of the views, beginning with that of number 1.
	Clients *protect.Map[table.View]
	Views   []string

	generation uint64 // set by SetRecords
}

// view returns the view a client belongs to.
func (r *Records) view(addr netip.Addr) table.View {
	if r.Clients == nil {
		return table.Everyone
	}
	v, _ := r.Clients.Lookup(addr)
	return v
}
