package table

import (
	"encoding/binary"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/wire"
)

// ZoneConfig is a zone the server is authoritative for.
type ZoneConfig struct {
	Name wire.Name
	// Nameservers are its name servers, the first of which is the primary.
	Nameservers []wire.Name
}

// Config says what applies to a table as a whole.
type Config struct {
	Zones []ZoneConfig
	// Hostmaster is the mailbox of those who run the server (SOA RNAME); empty: hostmaster in each zone.
	Hostmaster wire.Name
	// NegativeTTL is how long it may be remembered that there is nothing, in seconds.
	NegativeTTL uint32
	// NameserverTTL is that of NS records, in seconds.
	NameserverTTL uint32
}

// What secondaries would go by; there are none.
const (
	soaRefresh = 3600
	soaRetry   = 600
	soaExpire  = 86400
)

// Zone is a zone the server is authoritative for.
type Zone struct {
	Name wire.Name
	// SOA is its start of authority, as an RRset of one record.
	SOA Set
	// Serial is that of the SOA.
	Serial uint32
	// Names and Records count what is in it, apart from SOA and NS.
	Names, Records int
}

// soaSet makes the SOA of a zone.
func soaSet(primary, hostmaster wire.Name, serial, negativeTTL uint32) Set {
	data := append([]byte(primary), hostmaster...)
	for _, v := range []uint32{serial, soaRefresh, soaRetry, soaExpire, negativeTTL} {
		data = binary.BigEndian.AppendUint32(data, v)
	}
	return Set{Type: dns.TypeSOA, Count: 1, TTL: negativeTTL, Wire: appendRR(nil, dns.TypeSOA, negativeTTL, string(data))}
}
