package state

import (
	"fmt"
	"strings"

	"github.com/openmep/mep/api/dns"
)

// PrefixDNSRecords is where the records are that came over the DNS management: PREFIX{name}/{type}/{view}.
const PrefixDNSRecords = Root + "dns/records/"

// DNSRecordKey is the key of a record. The name is in lower case and ends in a dot; view may be empty.
func DNSRecordKey(name, rrtype, view string) string {
	return DNSRecordsOf(name) + rrtype + "/" + view
}

// DNSRecordsOf is the prefix of the records of a name.
func DNSRecordsOf(name string) string {
	return PrefixDNSRecords + dnsEscape.Replace(name) + "/"
}

// dnsEscape keeps apart what stands between slashes, and dnsUnescape puts it together again.
var (
	dnsEscape   = strings.NewReplacer("%", "%25", "/", "%2F")
	dnsUnescape = strings.NewReplacer("%25", "%", "%2F", "/")
)

// SplitDNSRecordKey divides what DNSRecordKey put together.
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

// DNSRecord is the record of a DNS record that came over the DNS management. Its name, type and view are spelled as in its key.
type DNSRecord struct {
	Version
	Record dns.Record `json:"record"`
}
