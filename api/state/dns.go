package state

import (
	"fmt"
	"strings"

	"github.com/openmep/mep/api/dns"
)

// PrefixDNSRecords is the prefix of the records created through the DNS management API: PREFIX{name}/{type}/{view}.
const PrefixDNSRecords = Root + "dns/records/"

// DNSRecordKey returns the key of a record. The name is in lower case and ends in a dot; view may be empty.
func DNSRecordKey(name, rrtype, view string) string {
	return DNSRecordsOf(name) + rrtype + "/" + view
}

// DNSRecordsOf returns the prefix of the records of a name.
func DNSRecordsOf(name string) string {
	return PrefixDNSRecords + dnsEscape.Replace(name) + "/"
}

// dnsEscape escapes the slashes in a part of a key, and dnsUnescape reverses it.
var (
	dnsEscape   = strings.NewReplacer("%", "%25", "/", "%2F")
	dnsUnescape = strings.NewReplacer("%25", "%", "%2F", "/")
)

// SplitDNSRecordKey splits a key returned by DNSRecordKey.
func SplitDNSRecordKey(key string) (name, rrtype, view string, err error) {
	rest, ok := strings.CutPrefix(key, PrefixDNSRecords)
	if ok {
		name, rest, ok = strings.Cut(rest, "/")
	}
	if ok {
		rrtype, view, ok = strings.Cut(rest, "/")
	}
	if !ok || name == "" || rrtype == "" || strings.Contains(view, "/") {
		return "", "", "", fmt.Errorf("key %q is not of the form %s{name}/{type}/{view}", key, PrefixDNSRecords)
	}
	return dnsUnescape.Replace(name), rrtype, view, nil
}

// DNSRecord is the stored form of a DNS record created through the DNS management API. Name, type and view are spelled as in
// its key.
type DNSRecord struct {
	Version
	Record dns.Record `json:"record"`
}
