package table

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/miekg/dns"

	api "github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/dnsagent/wire"
)

// Set is an RRset in packed form. The owner name of its records is a pointer to the question.
type Set struct {
	Type  uint16
	Count uint16
	// Each is the size of each record in octets if all have the same size, else 0.
	Each uint16
	// TTL is in seconds.
	TTL  uint32
	Wire []byte
}

// maxSet is the maximum size of an RRset in octets, so that it fits into a message with everything else.
const maxSet = api.MaxSize

// rrHeader is the size of what precedes the data of a packed record: owner, type, class, TTL and length.
const rrHeader = 12

func appendRR(buf []byte, rrtype uint16, ttl uint32, data string) []byte {
	buf = binary.BigEndian.AppendUint16(buf, wire.QuestionPointer)
	buf = binary.BigEndian.AppendUint16(buf, rrtype)
	buf = binary.BigEndian.AppendUint16(buf, dns.ClassINET)
	buf = binary.BigEndian.AppendUint32(buf, ttl)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(data))) //nolint:gosec // checked where records are made
	return append(buf, data...)
}

// Append appends the records to a message. owner is a pointer to their owner name; first is the index of the record to begin with,
// for sets whose records are all of one size.
func (s *Set) Append(buf []byte, owner uint16, first int) []byte {
	start := len(buf)
	if first > 0 && s.Each > 0 {
		cut := first % int(s.Count) * int(s.Each)
		buf = append(append(buf, s.Wire[cut:]...), s.Wire[:cut]...)
	} else {
		buf = append(buf, s.Wire...)
	}
	if owner != wire.QuestionPointer {
		for off := start; off < len(buf); off += rrHeader + int(binary.BigEndian.Uint16(buf[off+10:])) {
			binary.BigEndian.PutUint16(buf[off:], owner)
		}
	}
	return buf
}

// Target returns the target of a CNAME.
func (s *Set) Target() wire.Name { return wire.Name(s.Wire[rrHeader:]) }

// entry is a record and its origin.
type entry struct {
	Record
	origin *string
}

// pack returns the RRsets of one name, sorted by type.
func pack(entries []*entry) []Set {
	var types []uint16
	for _, e := range entries {
		if !slices.Contains(types, e.Type) {
			types = append(types, e.Type)
		}
	}
	if len(types) > 1 { // a CNAME stands alone (RFC 2181 10.1)
		types = slices.DeleteFunc(types, func(t uint16) bool { return t == dns.TypeCNAME })
	}
	slices.Sort(types)
	sets := make([]Set, 0, len(types))
	for _, t := range types {
		sets = append(sets, packType(nil, entries, t))
	}
	return sets
}

// maxDerived is the maximum number of records derived for one name: an address may have thousands of names.
const maxDerived = 16

// several is the number of records from which a map pays off.
const several = 8

// chosen appends the records that make up the RRset of a type: those given, or else the first of those derived; equal ones once
// (RFC 2181 5).
func chosen(used, entries []*entry, rrtype uint16) []*entry {
	var seen map[string]bool // only for many records
	if rrtype == dns.TypeCNAME {
		return append(used, slices.MinFunc(entries, aliasOrder))
	}
	for _, e := range entries {
		if e.Type != rrtype || e.derived {
			continue
		}
		if len(used) < several {
			if slices.ContainsFunc(used, func(u *entry) bool { return u.Data == e.Data }) {
				continue
			}
		} else {
			if seen == nil {
				seen = make(map[string]bool, len(entries))
				for _, u := range used {
					seen[u.Data] = true
				}
			}
			if seen[e.Data] {
				continue
			}
			seen[e.Data] = true
		}
		used = append(used, e)
	}
	if len(used) > 0 {
		return used
	}
	for _, e := range entries {
		if e.Type != rrtype || len(used) == maxDerived && e.Data >= used[maxDerived-1].Data {
			continue
		}
		i, there := slices.BinarySearchFunc(used, e.Data, func(u *entry, data string) int { return strings.Compare(u.Data, data) })
		if there {
			continue
		}
		if used = slices.Insert(used, i, e); len(used) > maxDerived {
			used = used[:maxDerived]
		}
	}
	return used
}

// aliasOrder sorts the CNAME that counts before others: one of a view comes before one for everyone.
func aliasOrder(a, b *entry) int {
	rank := func(e *entry) int {
		switch {
		case e.Type != dns.TypeCNAME:
			return 2
		case e.View == Everyone:
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Data, b.Data))
}

// fitting returns the records that fit into an RRset, and their size in octets. The selection does not depend on their order.
func fitting(used []*entry) (kept []*entry, size int) {
	for _, e := range used {
		size += rrHeader + len(e.Data)
	}
	if size <= maxSet {
		return used, size
	}
	used = slices.Clone(used)
	slices.SortFunc(used, func(a, b *entry) int { return strings.Compare(a.Data, b.Data) })
	size = 0
	for i, e := range used {
		if next := size + rrHeader + len(e.Data); i == 0 || next <= maxSet {
			size = next
			continue
		}
		return used[:i], size
	}
	return used, size
}

// packType returns the RRset of a type, in buf if there is room.
func packType(buf []byte, entries []*entry, rrtype uint16) Set {
	set := Set{Type: rrtype}
	var few [several]*entry
	used, size := fitting(chosen(few[:0], entries, rrtype))
	set.TTL = used[0].TTL
	for _, e := range entries {
		if e.Type == rrtype && e.derived == used[0].derived {
			set.TTL = min(set.TTL, e.TTL) // RFC 2181 5.2
		}
	}
	set.Count, set.Each = uint16(len(used)), uint16(rrHeader+len(used[0].Data)) //nolint:gosec // bounded by maxSet
	set.Wire = slices.Grow(buf, size)
	for _, e := range used {
		if rrHeader+len(e.Data) != int(set.Each) {
			set.Each = 0
		}
		set.Wire = appendRR(set.Wire, rrtype, set.TTL, e.Data)
	}
	return set
}
