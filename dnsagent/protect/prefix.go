// Package protect keeps a DNS server from being abused against others and from being exhausted. It provides maps by client
// address, DNS cookies (RFC 7873), and response rate limiting.
package protect

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Map maps an address to the value of the most specific prefix that contains it. A Map never changes, and is safe for concurrent
// use. A nil Map is empty.
type Map[V any] struct {
	values []V
	// IPv4 and IPv6 are kept apart: ::/0 does not contain IPv4 addresses.
	v4, v6 []span
}

// Entry is a prefix and its value.
type Entry[V any] struct {
	// Prefix is an IPv4 or IPv6 prefix; an IPv4-mapped one stands for the IPv4 one. Bits beyond its length are ignored.
	Prefix netip.Prefix
	Value  V
}

// number is an address as a number.
type number struct{ high, low uint64 }

func (n number) compare(o number) int {
	return cmp.Or(cmp.Compare(n.high, o.high), cmp.Compare(n.low, o.low))
}

func (n number) next() number {
	n.low++
	if n.low == 0 {
		n.high++
	}
	return n
}

// span is the addresses from first up to the next span; value is an index into Map.values, or -1 for none.
type span struct {
	first number
	value int
}

// NewMap returns a map of the entries. An invalid or duplicate prefix is an error.
func NewMap[V any](entries []Entry[V]) (*Map[V], error) {
	m := &Map[V]{values: make([]V, len(entries))}
	var v4, v6 []netip.Prefix
	index := make(map[netip.Prefix]int, len(entries))
	for i, e := range entries {
		p, err := canonical(e.Prefix)
		if err != nil {
			return nil, err
		}
		if _, twice := index[p]; twice {
			return nil, fmt.Errorf("the prefix %s comes twice", p)
		}
		index[p], m.values[i] = i, e.Value
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	m.v4, m.v6 = spans(v4, index), spans(v6, index)
	return m, nil
}

// canonical returns the form of a prefix in which prefixes are compared.
func canonical(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, fmt.Errorf("%s is not a prefix", p)
	}
	const mapped = 96 // the number of bits before the IPv4 address in a mapped one
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p.Masked(), nil
}

// spans turns prefixes, which are nested or disjoint, into spans, which do not overlap.
func spans(prefixes []netip.Prefix, index map[netip.Prefix]int) []span {
	// Sort by address; at the same address, the prefix that contains the other comes first.
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	type open struct {
		last  number
		value int
	}
	var around []open // the prefixes that contain the current address, outermost first
	var list []span
	begin := func(first number, value int) {
		if n := len(list); n > 0 && list[n-1].first == first {
			list = list[:n-1]
		}
		list = append(list, span{first, value})
	}
	// leave closes prefixes, innermost first, while ends returns true for their last address.
	leave := func(ends func(last number) bool) {
		for n := len(around); n > 0 && ends(around[n-1].last); n-- {
			after := around[n-1].last.next()
			around = around[:n-1]
			if n > 1 {
				begin(after, around[n-2].value)
			} else {
				begin(after, -1)
			}
		}
	}
	for _, p := range prefixes {
		first := numberOf(p.Addr())
		leave(func(last number) bool { return last.compare(first) < 0 })
		begin(first, index[p])
		around = append(around, open{last(p), index[p]})
	}
	end := number{^uint64(0), ^uint64(0)}
	leave(func(last number) bool { return last != end })
	return list
}

// last returns the last address of a prefix.
func last(p netip.Prefix) number {
	n := numberOf(p.Addr())
	rest := p.Addr().BitLen() - p.Bits()
	if rest > 64 {
		n.high |= 1<<(rest-64) - 1
		n.low = ^uint64(0)
	} else {
		n.low |= 1<<rest - 1 // all ones if rest is 64
	}
	return n
}

func numberOf(a netip.Addr) number {
	if a.Is4() {
		b := a.As4()
		return number{low: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// Lookup returns the value of the most specific prefix that contains the address, or false if there is none. An IPv4-mapped
// address stands for the IPv4 one, and a zone is ignored.
func (m *Map[V]) Lookup(a netip.Addr) (V, bool) {
	var none V
	if m == nil || !a.IsValid() {
		return none, false
	}
	a = a.Unmap()
	list := m.v6
	if a.Is4() {
		list = m.v4
	}
	n := numberOf(a)
	low, high := 0, len(list) // in the end, the span before low contains n
	for low < high {
		if mid := (low + high) / 2; list[mid].first.compare(n) <= 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == 0 || list[low-1].value < 0 {
		return none, false
	}
	return m.values[list[low-1].value], true
}
