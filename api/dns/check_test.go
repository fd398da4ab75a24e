package dns_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/problem"
)

func faultsOf(rec dns.Record) problem.InvalidParams {
	var faults problem.InvalidParams
	rec.Check(&faults)
	return faults
}

// label has 63 letters; four of them with their dots exceed the length of a name.
var label = strings.Repeat("a", 63)

func addresses(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("10.0.%d.%d", i/256, i%256)
	}
	return list
}

func TestGoodRecordsHaveOneForm(t *testing.T) {
	for name, x := range map[string]struct{ given, normal dns.Record }{
		"address": {
			dns.Record{Name: "WWW.Example", Type: "A", Class: "IN", TTL: 30, RData: []string{"192.0.2.1", "127.0.0.1"}},
			dns.Record{Name: "www.example.", Type: "A", TTL: 30, RData: []string{"192.0.2.1", "127.0.0.1"}, Zone: "."},
		},
		"address of IPv6": {
			dns.Record{Name: "_h-1.example.", Type: "AAAA", TTL: dns.MaxTTL, RData: []string{"2001:DB8:0::1"}, Zone: "Example"},
			dns.Record{Name: "_h-1.example.", Type: "AAAA", TTL: dns.MaxTTL, RData: []string{"2001:db8::1"}, Zone: "example."},
		},
		"wildcard of a view": {
			dns.Record{Name: "*.example", Type: "A", TTL: 1, RData: []string{"192.0.2.1"}, View: "ue.1", Zone: "."},
			dns.Record{Name: "*.example.", Type: "A", TTL: 1, RData: []string{"192.0.2.1"}, View: "ue.1", Zone: "."},
		},
		"alias": {
			dns.Record{Name: "a.example", Type: "CNAME", TTL: 1, RData: []string{"B.Example"}, Zone: "a.example"},
			dns.Record{Name: "a.example.", Type: "CNAME", TTL: 1, RData: []string{"b.example."}, Zone: "a.example."},
		},
		"pointer": {
			dns.Record{Name: "1.2.0.192.in-addr.arpa", Type: "PTR", TTL: 1, RData: []string{"a.example", "b.example."}},
			dns.Record{Name: "1.2.0.192.in-addr.arpa.", Type: "PTR", TTL: 1, RData: []string{"a.example.", "b.example."}, Zone: "."},
		},
		"service": {
			dns.Record{Name: "_sip._udp.example", Type: "SRV", TTL: 1, RData: []string{" 010  65535 0 H.example", "1 2 3 ."}},
			dns.Record{Name: "_sip._udp.example.", Type: "SRV", TTL: 1, RData: []string{"10 65535 0 h.example.", "1 2 3 ."}, Zone: "."},
		},
		"text": {
			dns.Record{Name: "t.example", Type: "TXT", TTL: 1, RData: []string{"", " v=1\t\"ü\\", "V=1"}},
			dns.Record{Name: "t.example.", Type: "TXT", TTL: 1, RData: []string{"", " v=1\t\"ü\\", "V=1"}, Zone: "."},
		},
		"longest name": {
			dns.Record{Name: label + "." + label + "." + label + "." + label[:61], Type: "A", TTL: 1, RData: addresses(dns.MaxRData)},
			dns.Record{Name: label + "." + label + "." + label + "." + label[:61] + ".", Type: "A", TTL: 1, RData: addresses(dns.MaxRData), Zone: "."},
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, faultsOf(x.given))
			x.given.Normalise()
			require.Equal(t, x.normal, x.given)
			require.Empty(t, faultsOf(x.normal))
			again := x.normal
			again.Normalise()
			require.Equal(t, x.normal, again)
		})
	}
}

func TestEveryFaultOfARecordIsNamed(t *testing.T) {
	const good = `"name":"www.example","type":"A","ttl":30,"rData":["192.0.2.1"]`
	with := func(members string) string { return "{" + good + "," + members + "}" } // the last member of a name counts
	for name, x := range map[string]struct {
		body string
		want []string
	}{
		"nothing":                  {`{}`, []string{"name is required", "type is required: A, AAAA, CNAME, PTR, SRV, TXT", "ttl must be 1 to 2147483647 seconds, not 0", "rData must have at least one value"}},
		"empty label":              {with(`"name":"a..example"`), []string{`name must be a domain name, whose first label may be "*", not "a..example"`}},
		"root":                     {with(`"name":"."`), []string{"name must be a domain name"}},
		"asterisk alone":           {with(`"name":"*"`), []string{"name must be a domain name"}},
		"asterisk with a dot":      {with(`"name":"*."`), []string{"name must be a domain name"}},
		"asterisk in a label":      {with(`"name":"a*.example"`), []string{"name must be a domain name"}},
		"second asterisk":          {with(`"name":"*.*.example"`), []string{"name must be a domain name"}},
		"asterisk behind":          {with(`"name":"a.*.example"`), []string{"name must be a domain name"}},
		"hyphen before":            {with(`"name":"-a.example"`), []string{"name must be a domain name"}},
		"hyphen behind":            {with(`"name":"a-.example"`), []string{"name must be a domain name"}},
		"blank":                    {with(`"name":"a .example"`), []string{"name must be a domain name"}},
		"not ASCII":                {with(`"name":"bücher.example"`), []string{"name must be a domain name"}},
		"escape":                   {with(`"name":"a\\046b.example"`), []string{"name must be a domain name"}},
		"long label":               {with(`"name":"` + label + `a.example"`), []string{"name must be a domain name"}},
		"long name":                {with(`"name":"` + label + "." + label + "." + label + "." + label[:62] + `"`), []string{"name must be a domain name"}},
		"unknown type":             {with(`"type":"MX"`), []string{`type must be one of A, AAAA, CNAME, PTR, SRV, TXT, not "MX"`}},
		"type in lower case":       {with(`"type":"a"`), []string{`type must be one of A, AAAA, CNAME, PTR, SRV, TXT, not "a"`}},
		"class in lower case":      {with(`"class":"in"`), []string{`class must be IN, not "in"`}},
		"class of EdgeGallery":     {with(`"class":"CH"`), []string{"class must be IN: records of other classes, such as CH, are not served"}},
		"any class":                {with(`"class":"*"`), []string{`class must be IN, not "*"`}},
		"long time to live":        {with(`"ttl":2147483648`), []string{"ttl must be 1 to 2147483647 seconds, not 2147483648"}},
		"no values":                {with(`"rData":[]`), []string{"rData must have at least one value"}},
		"too many values":          {with(`"rData":["` + strings.Join(addresses(dns.MaxRData+1), `","`) + `"]`), []string{"rData must have at most 256 values, not 257"}},
		"no address":               {with(`"rData":["192.0.2.1","host"]`), []string{`rData[1] must be an IPv4 or IPv6 address, not "host"`}},
		"other family":             {with(`"rData":["2001:db8::1"]`), []string{`rData[0] must be an IPv4 address as the type is A, not "2001:db8::1"`}},
		"other family of AAAA":     {with(`"type":"AAAA"`), []string{`rData[0] must be an IPv6 address as the type is AAAA, not "192.0.2.1"`}},
		"IPv4 as IPv6":             {with(`"type":"AAAA","rData":["::ffff:192.0.2.1"]`), []string{"rData[0] must be in the notation of IPv4"}},
		"address with a zone":      {with(`"type":"AAAA","rData":["fe80::1%eth0"]`), []string{"rData[0] must be without a zone"}},
		"no host":                  {with(`"rData":["0.0.0.0","224.0.0.1","255.255.255.255"]`), []string{"rData[0] must be the address of a host", "rData[1] must be the address of a host", "rData[2] must be the address of a host"}},
		"twice the same":           {with(`"type":"AAAA","rData":["2001:db8::1","::1","2001:DB8:0:0::1"]`), []string{`rData[2] must differ from rData[0]: "2001:DB8:0:0::1"`}},
		"two aliases":              {with(`"type":"CNAME","rData":["a.example","b.example"]`), []string{"rData must have one value as the type is CNAME, not 2"}},
		"alias of itself":          {with(`"type":"CNAME","rData":["WWW.example."]`), []string{"rData[0] must be another name than that of the record"}},
		"alias of a wildcard":      {with(`"type":"CNAME","rData":["*.example"]`), []string{`rData[0] must be a domain name, not "*.example"`}},
		"pointer to nothing":       {with(`"type":"PTR","rData":["."]`), []string{`rData[0] must be a domain name, not "."`}},
		"service without a port":   {with(`"type":"SRV","rData":["1 2 a.example"]`), []string{`rData[0] must be "priority weight port target", not "1 2 a.example"`}},
		"port of a service":        {with(`"type":"SRV","rData":["1 2 65536 a.example"]`), []string{`rData[0] must be "priority weight port target" with numbers from 0 to 65535`}},
		"signed priority":          {with(`"type":"SRV","rData":["+1 2 3 a.example"]`), []string{"with numbers from 0 to 65535"}},
		"target of a service":      {with(`"type":"SRV","rData":["1 2 3 *.example"]`), []string{`with a domain name, or ".", as its target`}},
		"text that is too long":    {with(`"type":"TXT","rData":["` + strings.Repeat("x", 63800) + `"]`), []string{"rData has values that take 64063 octets of a DNS message, more than 64000"}},
		"texts that are too long":  {with(`"type":"TXT","rData":["` + strings.Repeat("x", 32000) + `","` + strings.Repeat("y", 32000) + `"]`), []string{"rData has values that take 64276 octets"}},
		"zone beside the name":     {with(`"zone":"w.example"`), []string{`zone must be www.example. or a name that it is below, or ".", not "w.example"`}},
		"zone that ends alike":     {with(`"name":"www.anexample","zone":"example"`), []string{"zone must be www.anexample. or a name"}},
		"zone below the name":      {with(`"zone":"a.www.example"`), []string{"zone must be www.example."}},
		"no zone":                  {with(`"zone":"a..b"`), []string{`zone must be a domain name or ".", not "a..b"`}},
		"no view":                  {with(`"view":"a/b"`), []string{`view must be the name of a view, not "a/b"`}},
		"everything at a time":     {`{"name":"-","type":"X","class":"Y","ttl":0,"rData":["?"],"zone":"/","view":" "}`, []string{"name must be", "type must be", "class must be", "ttl must be", "zone must be", "view must be"}},
		"type and values together": {with(`"type":"X","rData":[]`), []string{"type must be", "rData must have at least one value"}},
	} {
		t.Run(name, func(t *testing.T) {
			var rec dns.Record
			require.NoError(t, json.Unmarshal([]byte(x.body), &rec))
			faults := faultsOf(rec)
			require.Len(t, faults, len(x.want), "%v", faults)
			for i, f := range faults {
				require.Contains(t, f.Name+" "+f.Reason, x.want[i])
			}
		})
	}
}

func TestFaultsAreNotListedWithoutEnd(t *testing.T) {
	values := make([]string, dns.MaxRData)
	require.Len(t, faultsOf(dns.Record{Name: "a.example", Type: "A", TTL: 1, RData: values}), 50)
}

func TestWhatIsNoTextIsRefused(t *testing.T) {
	faults := faultsOf(dns.Record{Name: "a.example", Type: "TXT", TTL: 1, RData: []string{"\xff" + strings.Repeat("ü", 64)}})
	require.Len(t, faults, 1)
	require.Contains(t, faults[0].Reason, "must be text in UTF-8")
	require.Contains(t, faults[0].Reason, "…")
}

func TestNamesWithin(t *testing.T) {
	for _, x := range []struct {
		name, zone string
		within     bool
	}{
		{"a.b.", ".", true},
		{"a.b.", "b.", true},
		{"a.b.", "a.b.", true},
		{"b.", "a.b.", false},
		{"ab.", "b.", false},
	} {
		require.Equal(t, x.within, dns.Within(x.name, x.zone), "%s %s", x.name, x.zone)
	}
}

// FuzzRecord checks that no record makes Check panic or list faults without bound, and that the normal form of an accepted record
// is accepted and does not change when normalised again.
func FuzzRecord(f *testing.F) {
	f.Add(`{"name":"www.example","type":"A","ttl":30,"rData":["192.0.2.1"]}`)
	f.Add(`{"name":"*.example.","type":"SRV","class":"IN","ttl":1,"rData":["1 2 3 a.example","0 0 0 ."],"zone":"example"}`)
	f.Add(`{"name":"t.example","type":"TXT","ttl":1,"rData":["","a"],"view":"ue"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var rec dns.Record
		if json.Unmarshal([]byte(text), &rec) != nil {
			return
		}
		if faults := faultsOf(rec); len(faults) > 0 {
			require.Less(t, len(faults), 60)
			return
		}
		rec.Normalise()
		require.Empty(t, faultsOf(rec))
		again := rec
		again.Normalise()
		require.Equal(t, rec, again)
	})
}
