package table_test

import (
	"fmt"
	"strconv"
	"testing"
	"unsafe"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// filled returns a writer with n names of one address each, from origins of 1,000 names.
func filled(n int) (*table.Writer, []wire.Name) {
	w := table.NewWriter(zones("mec.example."))
	names := make([]wire.Name, 0, n)
	var list []table.Record
	for i := range n {
		r := record("x.", "A", "192.0.2.1")
		r.Name = name(fmt.Sprintf("host-%d.mec.example.", i))
		names = append(names, r.Name)
		if list = append(list, r); len(list) == 1000 || i == n-1 {
			w.Put(fmt.Sprint(i), list)
			list = nil
		}
		if i%100_000 == 0 {
			w.Settle()
		}
	}
	return w, names
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		w, _ := filled(n)
		t := w.Publish(1)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			var buf [64]byte
			for b.Loop() {
				if i += 7919; i >= n {
					i %= n
				}
				if t.Lookup(wire.Name(spell(&buf, i)), dns.TypeA, table.Everyone).Kind != table.Found {
					b.Fatal("not found")
				}
			}
		})
	}
}

// BenchmarkChange measures the change of one rule among many.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		w, _ := filled(n)
		w.Publish(1)
		r := record("changed.mec.example.", "A", "192.0.2.1")
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				r.Name = name(fmt.Sprintf("changed-%d.mec.example.", i%1000))
				w.Put("changing", []table.Record{r})
				w.Publish(i)
			}
		})
	}
}

// spell builds the name of a host without a lookup in memory.
func spell(buf *[64]byte, i int) string {
	label := strconv.AppendInt(append(buf[:1], "host-"...), int64(i), 10)
	buf[0] = byte(len(label) - 1)
	name := append(label, "\x03mec\x07example\x00"...)
	return unsafe.String(&buf[0], len(name))
}
