package table

import (
	"iter"
	"net"

	"github.com/openmep/mep/dnsagent/wire"
)

// Table holds what the server knows by itself at one revision. It never changes.
type Table struct {
	// Revision is the store revision up to which the records were read.
	Revision int64
	// Names and Records count names and records. Records leaves out derived records and the NS records of zones.
	Names, Records int

	branches [fanout]*branch
	zones    map[wire.Name]*Zone
	longest  int // length of the names of zones, at least that of the root
	// wildcards counts the wildcards outside zones; if there are none, lookups need not search for them.
	wildcards int
	// soa is the SOA of overrides.
	soa Set
}

// node holds the records at a name and counts the names below it. What answers need comes first, close together in memory.
type node struct {
	// The name is the first length octets of short, or long if length is 0.
	length uint8
	short  [shortName]byte

	// sets are the RRsets for everyone.
	sets []Set
	// only and packed hold the RRset of a name with a single address, so that finding it leads to one place in memory.
	only   [1]Set
	packed [rrHeader + net.IPv6len]byte

	more    *more // nil for most nodes
	entries []*entry
	long    wire.Name
}

// more holds what only few nodes have.
type more struct {
	// views are the RRsets for clients who see more than everyone.
	views []viewSets
	// below counts the names below in the same zone, by the view that sees them.
	below []viewCount
}

type viewSets struct {
	view View
	sets []Set
}

type viewCount struct {
	view View
	n    int
}

// seen returns the RRsets of a name for clients of a view; nil if there are none.
func (n *node) seen(view View) []Set {
	if view != Everyone && n.more != nil {
		for i := range n.more.views {
			if n.more.views[i].view == view {
				return n.more.views[i].sets
			}
		}
	}
	return n.sets
}

// leads reports whether clients of a view see names below this one.
func (n *node) leads(view View) bool {
	if n.more == nil {
		return false
	}
	for _, c := range n.more.below {
		if c.view == Everyone || c.view == view {
			return true
		}
	}
	return false
}

func (n *node) below() []viewCount {
	if n.more == nil {
		return nil
	}
	return n.more.below
}

func (t *Table) node(name wire.Name) *node { return get(&t.branches, name) }

// Kind is what the table knows about a name.
type Kind uint8

// The kinds.
const (
	// NotLocal means that the table knows nothing; others may.
	NotLocal Kind = iota
	// Found means that there are records of the type, or a CNAME.
	Found
	// NoData means that the name exists, without such records.
	NoData
	// NXDomain means that the name does not exist (RFC 8020: nor does any name below).
	NXDomain
)

// Answer is the answer of the table to a question.
type Answer struct {
	Kind Kind
	// Set holds the records; nil if there are none.
	Set *Set
	// Zone is the zone of the name; nil outside zones.
	Zone *Zone
	// SOA is set for NoData and NXDomain. Outside zones its owner name is the name itself.
	SOA *Set
	// Wildcard reports whether the records are those of a wildcard, which is below the name Above.
	Wildcard bool
	Above    wire.Name
}

// Lookup looks up a name, which must be in lower case, for clients of a view.
func (t *Table) Lookup(name wire.Name, rrtype uint16, view View) Answer {
	n := t.node(name)
	if n != nil {
		if sets := n.seen(view); sets != nil {
			return t.answer(name, sets, rrtype)
		}
	}
	zone := t.ZoneOf(name)
	if zone == nil {
		return t.outside(name, rrtype, view)
	}
	if n != nil && n.leads(view) {
		return Answer{Kind: NoData, Zone: zone, SOA: &zone.SOA}
	}
	for above := name.Parent(); ; above = above.Parent() {
		if above != zone.Name {
			if n := t.node(above); n == nil || n.seen(view) == nil && !n.leads(view) {
				continue
			}
		}
		// above is the closest encloser (RFC 4592 3.3.1).
		if sets := t.wildcard(above, view); sets != nil {
			a := t.answer(name, sets, rrtype)
			a.Wildcard, a.Above = true, above
			return a
		}
		return Answer{Kind: NXDomain, Zone: zone, SOA: &zone.SOA}
	}
}

// outside looks for a wildcard that overrides a name outside zones.
func (t *Table) outside(name wire.Name, rrtype uint16, view View) Answer {
	if t.wildcards == 0 {
		return Answer{}
	}
	for above := name; len(above) > 1; {
		above = above.Parent()
		if sets := t.wildcard(above, view); sets != nil {
			a := t.answer(name, sets, rrtype)
			a.Wildcard, a.Above = true, above
			return a
		}
		if n := t.node(above); n != nil && n.seen(view) != nil {
			break
		}
	}
	return Answer{}
}

func (t *Table) wildcard(above wire.Name, view View) []Set {
	if len(above)+2 > wire.MaxName {
		return nil
	}
	return starred(above, func(name wire.Name) []Set {
		if n := t.node(name); n != nil {
			return n.seen(view)
		}
		return nil
	})
}

// Knows reports whether Lookup returns anything but NotLocal about a name to any client.
func (t *Table) Knows(name wire.Name) bool {
	if n := t.node(name); n != nil && len(n.entries) > 0 || t.ZoneOf(name) != nil {
		return true
	}
	if t.wildcards == 0 {
		return false
	}
	for above := name; len(above) > 1; {
		above = above.Parent()
		if len(above)+2 <= wire.MaxName && starred(above, func(name wire.Name) bool { return t.node(name) != nil }) {
			return true
		}
	}
	return false
}

// answer returns the answer from the RRsets of a name.
func (t *Table) answer(name wire.Name, sets []Set, rrtype uint16) Answer {
	for i := range sets {
		if sets[i].Type == rrtype || sets[i].Type == typeCNAME {
			return Answer{Kind: Found, Set: &sets[i]}
		}
	}
	zone := t.ZoneOf(name)
	if zone == nil {
		return Answer{Kind: NoData, SOA: &t.soa}
	}
	if zone.Name == name && rrtype == zone.SOA.Type {
		return Answer{Kind: Found, Set: &zone.SOA, Zone: zone}
	}
	return Answer{Kind: NoData, Zone: zone, SOA: &zone.SOA}
}

// ZoneOf returns the zone that contains a name, or nil.
func (t *Table) ZoneOf(name wire.Name) *Zone {
	for len(name) > t.longest {
		name = name.Parent()
	}
	return zoneOf(t.zones, name)
}

func zoneOf[Z any](zones map[wire.Name]*Z, name wire.Name) *Z {
	if len(zones) == 0 {
		return nil
	}
	for ; ; name = name.Parent() {
		if z := zones[name]; z != nil {
			return z
		}
		if len(name) <= 1 {
			return nil
		}
	}
}

// Zones iterates over the zones.
func (t *Table) Zones() iter.Seq[*Zone] {
	return func(yield func(*Zone) bool) {
		for _, z := range t.zones {
			if !yield(z) {
				return
			}
		}
	}
}

// Shown is a record with its origin.
type Shown struct {
	Record
	Origin string
	// Derived reports whether the record was derived from another record of the origin.
	Derived bool
	// Unanswered is the reason why the record is in no answer; empty if it is in one.
	Unanswered string
}

// At returns all records of a name, of all views.
func (t *Table) At(name wire.Name) []Shown {
	n := t.node(name)
	if n == nil {
		return nil
	}
	list, lost := make([]Shown, 0, len(n.entries)), unanswered(n.entries)
	for _, e := range n.entries {
		list = append(list, Shown{Record: e.Record, Origin: *e.origin, Derived: e.derived, Unanswered: lost[e]})
	}
	return list
}
