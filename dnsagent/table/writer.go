package table

import (
	"math"
	"slices"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/wire"
)

const typeCNAME = dns.TypeCNAME

// zoneOrigin is the origin of the NS records of zones.
const zoneOrigin = "zone"

// Writer makes tables. It must not be used concurrently.
type Writer struct {
	cfg     Config
	origins map[string][]entry
	touched map[wire.Name][]*entry
	zones   map[wire.Name]*zoneCount

	branches  [fanout]*branch
	mine      [fanout]bool // branches and shards that no table shares
	mineShard [shards]bool
	names     int
	records   int
	wildcards int
	losses    losses
}

type zoneCount struct {
	cfg            ZoneConfig
	names, records int
}

// NewWriter returns a writer of a table that holds nothing but its zones.
func NewWriter(cfg Config) *Writer {
	w := &Writer{
		cfg: cfg, origins: make(map[string][]entry), touched: make(map[wire.Name][]*entry), zones: make(map[wire.Name]*zoneCount),
		losses: newLosses(),
	}
	var apexes []Record
	for _, z := range cfg.Zones {
		w.zones[z.Name] = &zoneCount{cfg: z}
		for _, ns := range z.Nameservers {
			apexes = append(apexes, Record{Name: z.Name, Type: dns.TypeNS, Data: string(ns), TTL: cfg.NameserverTTL})
		}
	}
	w.Put(zoneOrigin, apexes)
	w.Settle()
	for name := range w.zones {
		// The apex of a zone within another zone is a name that exists in the outer one.
		if above := zoneOf(w.zones, name.Parent()); above != nil && above.cfg.Name != name {
			w.below(name, above.cfg.Name, Everyone, 1)
		}
	}
	return w
}

// Put replaces the records of an origin. If there are none, it removes the origin.
func (w *Writer) Put(origin string, records []Record) {
	for i := range w.origins[origin] {
		w.remove(&w.origins[origin][i])
	}
	delete(w.origins, origin)
	if len(records) == 0 {
		return
	}
	entries := make([]entry, 0, len(records))
	for _, r := range records {
		entries = append(entries, entry{Record: r, origin: &origin})
	}
	if len(w.zones) > 0 {
		for _, r := range records {
			if ptr, ok := w.reverse(&r); ok {
				entries = append(entries, entry{Record: ptr, origin: &origin})
			}
		}
	}
	w.origins[origin] = entries
	for i := range entries {
		w.touch(entries[i].Name)
		w.touched[entries[i].Name] = append(w.touched[entries[i].Name], &entries[i])
	}
}

// reverse returns the PTR record of an address record, if there is a zone for it.
func (w *Writer) reverse(r *Record) (Record, bool) {
	if r.Type != dns.TypeA && r.Type != dns.TypeAAAA || r.Name.IsWildcard() || r.Weak {
		return Record{}, false
	}
	name := ReverseName(r.Data)
	if zoneOf(w.zones, name) == nil {
		return Record{}, false
	}
	return Record{Name: name, Type: dns.TypePTR, Data: string(r.Name), TTL: r.TTL, View: r.View, ID: r.ID, derived: true}, true
}

// ReverseName returns the name for the reverse lookup of an address, given the data of its A or AAAA record.
func ReverseName(addr string) wire.Name {
	const hex = "0123456789abcdef"
	var buf []byte
	for i := len(addr) - 1; i >= 0; i-- {
		b := addr[i]
		switch {
		case len(addr) == 16:
			buf = append(buf, 1, hex[b&0xf], 1, hex[b>>4])
		case b >= 100:
			buf = append(buf, 3, '0'+b/100, '0'+b/10%10, '0'+b%10)
		case b >= 10:
			buf = append(buf, 2, '0'+b/10, '0'+b%10)
		default:
			buf = append(buf, 1, '0'+b)
		}
	}
	if len(addr) == 16 {
		return wire.Name(buf) + "\x03ip6\x04arpa\x00"
	}
	return wire.Name(buf) + "\x07in-addr\x04arpa\x00"
}

// Origins returns the number of origins besides that of the zones, of which there must be one.
func (w *Writer) Origins() int { return len(w.origins) - 1 }

// touch copies the entries of a name that is about to change.
func (w *Writer) touch(name wire.Name) {
	if _, ok := w.touched[name]; ok {
		return
	}
	var entries []*entry
	if n := w.get(name); n != nil {
		entries = slices.Clone(n.entries)
	}
	w.touched[name] = entries
}

func (w *Writer) remove(e *entry) {
	w.touch(e.Name)
	list := w.touched[e.Name]
	if i := slices.Index(list, e); i >= 0 {
		w.touched[e.Name] = slices.Delete(list, i, i+1)
	}
}

// Settle applies what was put. Publish calls it, too; callers that put a great deal call it in between to save memory.
func (w *Writer) Settle() {
	for name, entries := range w.touched {
		w.rebuild(name, entries)
	}
	clear(w.touched)
}

// Publish returns a table of what was put, read up to the revision.
func (w *Writer) Publish(revision int64) *Table {
	w.Settle()
	serial := uint32(revision & math.MaxUint32) // serials wrap around (RFC 1982)
	t := &Table{
		Revision: revision, Names: w.names, Records: w.records, branches: w.branches, wildcards: w.wildcards,
		zones: make(map[wire.Name]*Zone, len(w.zones)),
	}
	t.longest = len(wire.Root)
	t.soa = soaSet(wire.Root, wire.Root, serial, w.cfg.NegativeTTL)
	for i, cfg := range w.cfg.Zones {
		mbox := w.cfg.Hostmaster
		if mbox == "" {
			mbox, _ = cfg.Name.Child("hostmaster")
		}
		soa := soaSet(cfg.Nameservers[0], mbox, serial, w.cfg.NegativeTTL)
		if i == 0 {
			t.soa = soa
		}
		z := w.zones[cfg.Name]
		t.longest = max(t.longest, len(cfg.Name))
		t.zones[cfg.Name] = &Zone{Name: cfg.Name, Serial: serial, Names: z.names, Records: z.records, SOA: soa}
	}
	w.mine, w.mineShard = [fanout]bool{}, [shards]bool{}
	return t
}

func (w *Writer) get(name wire.Name) *node { return get(&w.branches, name) }

// set stores the node of a name, or removes it if n is nil, in a branch and a shard that no table shares.
func (w *Writer) set(name wire.Name, n *node) {
	hash := hashOf(name)
	b, s := place(hash)
	if !w.mine[b] {
		copied := new(branch)
		if w.branches[b] != nil {
			*copied = *w.branches[b]
		}
		w.branches[b], w.mine[b] = copied, true
	}
	at := &w.branches[b][s]
	if i := b*fanout + s; !w.mineShard[i] || (at.used+1)*4 > len(at.slots)*3 {
		*at, w.mineShard[i] = at.copied(), true
	}
	at.set(hash, name, n)
}

// rebuild makes the node of a name whose entries have changed.
func (w *Writer) rebuild(name wire.Name, entries []*entry) {
	old := w.get(name)
	if old == nil {
		if len(entries) == 0 {
			return
		}
		old = &node{}
	}
	n := &node{entries: entries}
	n.named(name)
	views := w.pack(n)
	below := old.below()
	if len(views)+len(below) > 0 {
		n.more = &more{views: views, below: below}
	}
	w.losses.set(name, unanswered(entries))
	w.count(name, old, n)
	if len(entries) == 0 && len(below) == 0 {
		n = nil
	}
	w.set(name, n)
}

// pack makes the RRsets of a node for everyone, and returns those for views that see other records of it.
func (w *Writer) pack(n *node) (more []viewSets) {
	var views []View
	for _, e := range n.entries {
		if e.View != Everyone && !slices.Contains(views, e.View) {
			views = append(views, e.View)
		}
	}
	if views == nil {
		switch entries := strong(n.entries); len(entries) {
		case 0:
		case 1:
			n.only[0] = packType(n.packed[:0], entries, entries[0].Type)
			n.sets = n.only[:]
		default:
			n.sets = pack(entries)
		}
		return nil
	}
	visible := func(view View) []Set {
		var seen []*entry
		for _, e := range n.entries {
			if e.View == Everyone || e.View == view {
				seen = append(seen, e)
			}
		}
		if seen == nil {
			return nil
		}
		return pack(strong(seen))
	}
	n.sets = visible(Everyone)
	for _, v := range views {
		more = append(more, viewSets{view: v, sets: visible(v)})
	}
	return more
}

// strong leaves out the weak entries if there are others.
func strong(entries []*entry) []*entry {
	weak := 0
	for _, e := range entries {
		if e.Weak {
			weak++
		}
	}
	if weak == 0 || weak == len(entries) {
		return entries
	}
	kept := make([]*entry, 0, len(entries)-weak)
	for _, e := range entries {
		if !e.Weak {
			kept = append(kept, e)
		}
	}
	return kept
}

// count updates the counts when a node takes the place of another.
func (w *Writer) count(name wire.Name, old, n *node) {
	zone := zoneOf(w.zones, name)
	names, records := 0, given(n)-given(old)
	if (len(n.entries) > 0) != (len(old.entries) > 0) {
		if names = 1; len(n.entries) == 0 {
			names = -1
		}
	}
	w.names += names
	w.records += records
	if zone == nil {
		if name.IsWildcard() {
			w.wildcards += names
		}
		return
	}
	zone.names += names
	zone.records += records
	if name == zone.cfg.Name {
		return
	}
	was, is := viewsOf(old), viewsOf(n)
	for _, v := range is {
		if !slices.Contains(was, v) {
			w.below(name, zone.cfg.Name, v, 1)
		}
	}
	for _, v := range was {
		if !slices.Contains(is, v) {
			w.below(name, zone.cfg.Name, v, -1)
		}
	}
}

func given(n *node) int {
	c := 0
	for _, e := range n.entries {
		if !e.derived && *e.origin != zoneOrigin {
			c++
		}
	}
	return c
}

func viewsOf(n *node) []View {
	var views []View
	for _, e := range n.entries {
		if !slices.Contains(views, e.View) {
			views = append(views, e.View)
		}
	}
	return views
}

// below adds by to the counts of the names between a name and the apex of its zone.
func (w *Writer) below(name, apex wire.Name, view View, by int) {
	for above := name.Parent(); above != apex; above = above.Parent() {
		n := &node{}
		n.named(above)
		if old := w.get(above); old != nil {
			*n = *old // the copy shares the RRsets
		}
		m := more{below: slices.Clone(n.below())}
		if n.more != nil {
			m.views = n.more.views
		}
		i := slices.IndexFunc(m.below, func(c viewCount) bool { return c.view == view })
		if i < 0 {
			i = len(m.below)
			m.below = append(m.below, viewCount{view: view})
		}
		if m.below[i].n += by; m.below[i].n == 0 {
			m.below = slices.Delete(m.below, i, i+1)
		}
		switch n.more = &m; {
		case len(m.below)+len(m.views) > 0:
		case len(n.entries) == 0:
			n = nil
		default:
			n.more = nil
		}
		w.set(above, n)
	}
}
