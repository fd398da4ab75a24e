package records

import (
	"encoding/binary"
	"fmt"
	"slices"

	rr "github.com/miekg/dns"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// Wire converts a record into records of the table. It succeeds for every record that passes Check.
func Wire(rec *dns.Record, view table.View) ([]table.Record, error) {
	name, err := wire.ParseName(rec.Name)
	if err != nil {
		return nil, err
	}
	rrtype, ok := rr.StringToType[rec.Type]
	if !ok || !slices.Contains(dns.Types, rec.Type) {
		return nil, fmt.Errorf("record %s: there is no type %q here", rec.Name, rec.Type)
	}
	list := make([]table.Record, len(rec.RData))
	for i, value := range rec.RData {
		data, err := pack(rec.Type, value)
		if err != nil {
			return nil, fmt.Errorf("record %s %s: value %d %w", rec.Name, rec.Type, i, err)
		}
		list[i] = table.Record{Name: name, Type: rrtype, Data: data, TTL: rec.TTL, View: view}
	}
	return list, nil
}

// pack returns a value in wire format (RFC 1035 3.3, 3.4.1; RFC 2782; RFC 3596 2.2). The error completes a sentence.
func pack(rrtype, value string) (string, error) {
	switch rrtype {
	case dns.TypeA, dns.TypeAAAA:
		a, err := dns.ParseAddress(rrtype, value)
		return string(a.AsSlice()), err
	case dns.TypeCNAME, dns.TypePTR:
		name, err := wire.ParseName(value)
		return string(name), err
	case dns.TypeSRV:
		srv, err := dns.ParseSRV(value)
		if err != nil {
			return "", err
		}
		target, err := wire.ParseName(srv.Target)
		b := binary.BigEndian.AppendUint16(make([]byte, 0, 6+len(target)), srv.Priority)
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, srv.Weight), srv.Port)
		return string(append(b, target...)), err
	}
	return packText(value), nil
}

// packText returns the character-strings of a TXT record: as many of up to 255 octets as s needs, at least one.
func packText(s string) string {
	const most = 255
	b := make([]byte, 0, len(s)+1+len(s)/most)
	for {
		n := min(len(s), most)
		b = append(append(b, byte(n)), s[:n]...)
		if s = s[n:]; s == "" {
			return string(b)
		}
	}
}
