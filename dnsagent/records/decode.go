package records

import (
	"bytes"
	"fmt"
	"strconv"
	"unique"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/state"
)

// Decode decodes a record from etcd; it is a watched.Decoder. A start may have to read a million records within seconds, so quickly
// decodes most of them.
func Decode(key string, value []byte, _ int64) (*dns.Record, error) {
	rec, ok := quickly(value)
	if !ok {
		stored, err := state.Decode[state.DNSRecord](value)
		if err != nil {
			return nil, err
		}
		rec = &stored.Record
	}
	name, rrtype, view, err := state.SplitDNSRecordKey(key)
	if err != nil {
		return nil, err
	}
	if rec.Name != name || rec.Type != rrtype || rec.View != view {
		return nil, fmt.Errorf("the record of %s is below the key of %s", what(rec.Name, rec.Type, rec.View), what(name, rrtype, view))
	}
	// These share the memory of the key, and of each other.
	rec.Name, rec.Type, rec.View = name, rrtype, view
	rec.Zone = unique.Make(rec.Zone).Value()
	return rec, nil
}

// single is a record with room for one value, which is all that most records have.
type single struct {
	record dns.Record
	value  [1]string
}

// head is how the records that this code writes begin.
var head = `{"v":` + strconv.Itoa(state.SchemaVersion) + `,"record":{"name":`

// quickly decodes a record in normal form as state.Encode writes it, without escapes, several times as fast as package json. ok is
// false for all other input.
func quickly(value []byte) (rec *dns.Record, ok bool) {
	r := scanner{rest: value, ok: true}
	s := &single{}
	rec = &s.record
	r.literal(head)
	rec.Name = string(r.text())
	r.literal(`,"type":`)
	rec.Type = string(r.text())
	r.literal(`,"ttl":`)
	rec.TTL = r.number()
	r.literal(`,"rData":[`)
	s.value[0] = string(r.text())
	rec.RData = s.value[:]
	for r.optional(`,`) {
		rec.RData = append(rec.RData, string(r.text()))
	}
	r.literal(`],"zone":`)
	rec.Zone = string(r.text())
	if r.optional(`,"view":`) {
		rec.View = string(r.text())
	}
	r.literal(`}}`)
	return rec, r.ok && len(r.rest) == 0
}

// scanner parses JSON of a known form. ok becomes false when the input has another form.
type scanner struct {
	rest []byte
	ok   bool
}

func (r *scanner) optional(text string) bool {
	if !r.ok || len(r.rest) < len(text) || string(r.rest[:len(text)]) != text {
		return false
	}
	r.rest = r.rest[len(text):]
	return true
}

func (r *scanner) literal(text string) { r.ok = r.optional(text) }

// text reads a string of printable ASCII without escapes.
func (r *scanner) text() []byte {
	r.literal(`"`)
	end := bytes.IndexByte(r.rest, '"')
	if r.ok = r.ok && end >= 0; !r.ok {
		return nil
	}
	s := r.rest[:end]
	r.rest = r.rest[end+1:]
	for _, c := range s {
		r.ok = r.ok && ' ' <= c && c < 0x7f && c != '\\'
	}
	return s
}

func (r *scanner) number() uint32 {
	end := 0
	for end < len(r.rest) && '0' <= r.rest[end] && r.rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(string(r.rest[:end]), 10, 32)
	if r.ok = r.ok && err == nil && (end == 1 || r.rest[0] != '0'); !r.ok {
		return 0
	}
	r.rest = r.rest[end:]
	return uint32(n)
}
