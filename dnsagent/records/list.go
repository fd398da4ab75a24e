package records

import (
	"iter"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/state"
)

// Filter selects records. Its fields are combined by AND; the zero Filter matches all.
type Filter struct {
	// Name is a canonical name.
	Name string
	// Below is a canonical name, which matches itself and all names below it.
	Below string
	// Type is a record type in capitals.
	Type string
	// Zone is a canonical zone.
	Zone string
	// View is the name of a view, or "" for the records that everyone sees; nil matches all records.
	View *string
}

// Matches reports whether the filter selects rec.
func (f Filter) Matches(rec *dns.Record) bool {
	return (f.Name == "" || rec.Name == f.Name) &&
		(f.Below == "" || dns.Within(rec.Name, f.Below)) &&
		(f.Type == "" || rec.Type == f.Type) &&
		(f.Zone == "" || rec.Zone == f.Zone) &&
		(f.View == nil || rec.View == *f.View)
}

// List iterates over the records that match the filter, in the order of their names, types and views.
func (b *Book) List(f Filter) iter.Seq[*Item] { return b.from(state.PrefixDNSRecords, f) }

// from iterates over the matching records whose keys are not below key.
func (b *Book) from(key string, f Filter) iter.Seq[*Item] {
	snapshot := b.items.Snapshot()
	all := snapshot.From(key)
	if f.Name != "" {
		all = snapshot.Prefix(state.DNSRecordsOf(f.Name))
	}
	return func(yield func(*Item) bool) {
		for item := range all {
			if f.Matches(item.Value) && !yield(item) {
				return
			}
		}
	}
}

// Page is one page of the records that match a filter.
type Page struct {
	// Items are the records.
	Items []*Item
	// Next is the key of the last record without its prefix, after which the next page begins; empty on the last page.
	Next string
}

// Page returns at most limit records that match the filter, from after the place that an earlier page returned; after may be empty. A
// record created or removed between two pages may be missing; no other record is.
func (b *Book) Page(f Filter, after string, limit int) Page {
	var p Page
	from := state.PrefixDNSRecords + after
	for item := range b.from(from, f) {
		if item.Key <= from {
			continue
		}
		if len(p.Items) == limit {
			p.Next = p.Items[limit-1].Key[len(state.PrefixDNSRecords):]
			break
		}
		p.Items = append(p.Items, item)
	}
	return p
}
