package table

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/wire"
)

// unanswered returns the records of a name that are in no answer to the clients they are for, with the reasons; nil for nearly all
// names. It leaves out weak and derived records, which give way as intended.
func unanswered(entries []*entry) map[*entry]string {
	if !doubtful(entries) {
		return nil
	}
	views := []View{Everyone}
	for _, e := range entries {
		if !slices.Contains(views, e.View) {
			views = append(views, e.View)
		}
	}
	lost := make(map[*entry]string)
	for _, view := range views {
		var seen []*entry
		for _, e := range entries {
			if e.View == Everyone || e.View == view {
				seen = append(seen, e)
			}
		}
		seen = strong(seen)
		for _, e := range seen {
			if e.Type != dns.TypeCNAME || e.View != view || e.Weak {
				continue
			}
			if i := slices.IndexFunc(seen, func(o *entry) bool { return o.Type != dns.TypeCNAME }); i >= 0 {
				lost[e] = fmt.Sprintf("a name with a CNAME has nothing else, and there is the %s of %s", typeName(seen[i].Type), source(seen[i]))
			}
		}
		findCut(seen, lost)
	}
	if len(lost) == 0 {
		return nil
	}
	return lost
}

// doubtful reports whether some of the records of a name may not be answered.
func doubtful(entries []*entry) bool {
	if len(entries) < 2 {
		return false
	}
	size := 0
	for _, e := range entries {
		size += rrHeader + len(e.Data)
		if e.Type == dns.TypeCNAME {
			return true
		}
	}
	return size > maxSet
}

// findCut adds the records that do not fit into their RRsets to lost.
func findCut(seen []*entry, lost map[*entry]string) {
	var types []uint16
	for _, e := range seen {
		if slices.Contains(types, e.Type) {
			continue
		}
		types = append(types, e.Type)
		used := chosen(nil, seen, e.Type)
		kept, _ := fitting(used)
		if len(kept) == len(used) {
			continue
		}
		in := make(map[string]bool, len(kept))
		for _, k := range kept {
			in[k.Data] = true
		}
		for _, o := range seen {
			if o.Type == e.Type && !o.derived && !o.Weak && !in[o.Data] {
				lost[o] = fmt.Sprintf("the records of the type %s of this name take more than %d octets of an answer", typeName(o.Type), maxSet)
			}
		}
	}
}

func typeName(rrtype uint16) string {
	return cmp.Or(dns.TypeToString[rrtype], fmt.Sprintf("TYPE%d", rrtype))
}

// source describes the origin of a record to people.
func source(e *entry) string {
	if *e.origin == zoneOrigin {
		return "the zone"
	}
	return *e.origin
}

// Displaced returns, in sentences, which records would no longer be answered, or not at all, if the origins in next had those records
// instead of their present ones.
func (t *Table) Displaced(next map[string][]Record) []string {
	added := make(map[wire.Name][]*entry)
	for origin, records := range next {
		for _, r := range records {
			added[r.Name] = append(added[r.Name], &entry{Record: r, origin: &origin})
		}
	}
	sentences := make(map[string]struct{})
	for name, entries := range added {
		var before map[*entry]string
		if n := t.node(name); n != nil {
			before = unanswered(n.entries)
			for _, e := range n.entries {
				if _, replaced := next[*e.origin]; !replaced {
					entries = append(entries, e)
				}
			}
		}
		for e, why := range unanswered(entries) {
			if _, known := before[e]; known {
				continue
			}
			what := fmt.Sprintf("%s %s", name, typeName(e.Type))
			if _, given := next[*e.origin]; !given {
				what += " of " + source(e)
			}
			sentences[what+" would not be answered: "+why] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(sentences))
}

// Unanswered returns why records of an origin at a name are not answered, or "" if all are.
func (t *Table) Unanswered(origin string, name wire.Name) string {
	n := t.node(name)
	if n == nil {
		return ""
	}
	var least string
	for e, why := range unanswered(n.entries) {
		if *e.origin == origin && (least == "" || strings.Compare(why, least) < 0) {
			least = why
		}
	}
	return least
}

// losses keeps track of the records that are not answered.
type losses struct {
	names map[wire.Name]map[*entry]string
	// changed holds the origins whose unanswered records have changed since Changed was last called.
	changed map[string]struct{}
}

func newLosses() losses {
	return losses{names: make(map[wire.Name]map[*entry]string), changed: make(map[string]struct{})}
}

// set notes which records of a name are not answered now.
func (l *losses) set(name wire.Name, now map[*entry]string) {
	was := l.names[name]
	if len(was)+len(now) == 0 {
		return
	}
	for e := range was {
		if _, still := now[e]; !still {
			l.changed[*e.origin] = struct{}{}
		}
	}
	for e := range now {
		if _, already := was[e]; !already {
			l.changed[*e.origin] = struct{}{}
		}
	}
	if len(now) == 0 {
		delete(l.names, name)
		return
	}
	l.names[name] = now
}

// Changed returns the origins whose unanswered records have changed since its last call.
func (w *Writer) Changed() []string {
	if len(w.losses.changed) == 0 {
		return nil
	}
	changed := slices.Collect(maps.Keys(w.losses.changed))
	clear(w.losses.changed)
	return changed
}

// Lost returns the number of records that are not answered.
func (w *Writer) Lost() int {
	n := 0
	for _, lost := range w.losses.names {
		n += len(lost)
	}
	return n
}

// LostOf returns the reasons why records of an origin are not answered, by record ID; nil if all are answered.
func (w *Writer) LostOf(origin string) map[string]string {
	if len(w.losses.names) == 0 {
		return nil
	}
	var list map[string]string
	entries := w.origins[origin]
	for i := range entries {
		why, lost := w.losses.names[entries[i].Name][&entries[i]]
		if !lost {
			continue
		}
		if list == nil {
			list = make(map[string]string)
		}
		list[entries[i].ID] = why
	}
	return list
}
