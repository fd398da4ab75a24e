// Package protect keeps a DNS server from being used against others and from being used up: who is who by address, cookies
// (RFC 7873) and the limits to what is sent to one place.
package protect

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Map finds what belongs to an address: the value of the most specific prefix that contains it. It never changes, and may be
// used by many goroutines. A nil Map is empty.
type Map[V any] struct {
	values []V
	// IPv4 and IPv6 by themselves: ::/0 is not for IPv4.
	v4, v6 []span
}

// Entry is the value of a prefix.
type Entry[V any] struct {
	// Prefix is one of IPv4 or IPv6; an IPv4 one that is mapped into IPv6 is the IPv4 one. Bits beyond its length do not matter.
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

// span is the addresses from first up to the next span; value is an index, -1 when there is none.
type span struct {
	first number
	value int
}

// NewMap makes a map. A prefix that is none, or comes twice, is an error.
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

// canonical is a prefix in the one form in which it is compared.
func canonical(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, fmt.Errorf("%s is not a prefix", p)
	}
	const mapped = 96 // the bits before an IPv4 address that is mapped
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p.Masked(), nil
}

// spans turns prefixes, which lie one in another or apart, into spans, which do not overlap.
func spans(prefixes []netip.Prefix, index map[netip.Prefix]int) []span {
	// By address, and where that is the same the one that contains the other first.
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	type open struct {
		last  number
		value int
	}
	var around []open // the prefixes that contain the present address
	var list []span
	begin := func(first number, value int) {
		if n := len(list); n > 0 && list[n-1].first == first {
			list = list[:n-1]
		}
		list = append(list, span{first, value})
	}
	// leave ends what ends before an address.
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

// last is the last address of a prefix.
func last(p netip.Prefix) number {
	n := numberOf(p.Addr())
	rest := p.Addr().BitLen() - p.Bits()
	if rest > 64 {
		n.high |= 1<<(rest-64) - 1
		n.low = ^uint64(0)
	} else {
		n.low |= 1<<rest - 1 // all of it when rest is 64
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

// Lookup returns the value of the most specific prefix that contains the address; false when none does. An IPv4 address that is
// mapped into IPv6 is the IPv4 address, and a zone does not matter.
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
	low, high := 0, len(list) // the span looked for is the one before high
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
