package table

import (
	"iter"
	"net"

	"github.com/openmep/mep/dnsagent/wire"
)

// Table is what the server knows by itself, at one revision. It never changes.
type Table struct {
	// Revision is the revision of the store up to which the records were read.
	Revision int64
	// Names and Records count what there is, Records without those that were derived.
	Names, Records int

	branches [fanout]*branch
	zones    map[wire.Name]*Zone
	longest  int // of the names of zones, at least that of the root
	// wildcards counts the wildcards outside zones: without any there is no need to look for them.
	wildcards int
	// soa is that of overrides.
	soa Set
}

// node is what there is at a name and below. What answers need comes first, and together.
type node struct {
	// The name: short, of a length, or else long.
	length uint8
	short  [shortName]byte

	// sets are for everyone.
	sets []Set
	// only and packed are where the RRset of a name with a single address is, so that finding it leads to one place in memory.
	only   [1]Set
	packed [rrHeader + net.IPv6len]byte

	more    *more // nil for most
	entries []*entry
	long    wire.Name
}

// more is what few nodes have.
type more struct {
	// views are for those who see more than everyone.
	views []viewSets
	// below counts the names below in the same zone that a view sees.
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

// seen returns what a client sees of a name; nothing when the name has no records for it.
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

// leads reports whether there are names below that a client sees.
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

// Kind says what the table knows of a name.
type Kind uint8

// The kinds.
const (
	// NotLocal: nothing, others may know.
	NotLocal Kind = iota
	// Found: there are records of the type, or a CNAME.
	Found
	// NoData: the name exists, without such records.
	NoData
	// NXDomain: the name does not exist (RFC 8020: nor does any below).
	NXDomain
)

// Answer is what the table says to a question.
type Answer struct {
	Kind Kind
	// Set holds the records; nil when there are none.
	Set *Set
	// Zone is the zone of the name, nil outside.
	Zone *Zone
	// SOA goes with NoData and NXDomain. Outside zones its owner is the name itself.
	SOA *Set
	// Wildcard says that the records are those of a wildcard, Above is the name it is below.
	Wildcard bool
	Above    wire.Name
}

// Lookup says what there is of a name, which is in lower case, for clients of a view.
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
		// The closest encloser (RFC 4592 3.3.1).
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

// Knows reports whether there are clients to whom Lookup says something else of a name than NotLocal.
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

// answer is the answer from the RRsets of a name.
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

// ZoneOf is the zone a name lies in, nil when it lies in none.
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

// Zones walks over the zones.
func (t *Table) Zones() iter.Seq[*Zone] {
	return func(yield func(*Zone) bool) {
		for _, z := range t.zones {
			if !yield(z) {
				return
			}
		}
	}
}

// Shown is a record with where it comes from.
type Shown struct {
	Record
	Origin string
	// Derived says that it was made from a record of the origin.
	Derived bool
	// Unanswered is why the record is in no answer; empty when it is.
	Unanswered string
}

// At lists all records of a name, whoever sees them.
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
