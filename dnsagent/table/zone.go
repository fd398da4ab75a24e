package table

import (
	"encoding/binary"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/wire"
)

// ZoneConfig configures a zone the server is authoritative for.
type ZoneConfig struct {
	Name wire.Name
	// Nameservers are the name servers of the zone; the first one is the primary.
	Nameservers []wire.Name
}

// Config holds the settings of a table.
type Config struct {
	Zones []ZoneConfig
	// Hostmaster is the mailbox of the operators of the server (SOA RNAME); if empty, it is hostmaster in each zone.
	Hostmaster wire.Name
	// NegativeTTL is how long negative answers may be cached, in seconds.
	NegativeTTL uint32
	// NameserverTTL is the TTL of NS records in seconds.
	NameserverTTL uint32
}

// SOA timers for secondary servers, of which there are none.
const (
	soaRefresh = 3600
	soaRetry   = 600
	soaExpire  = 86400
)

// Zone is a zone the server is authoritative for.
type Zone struct {
	Name wire.Name
	// SOA is the SOA record of the zone, as an RRset of one record.
	SOA Set
	// Serial is the serial number of the SOA.
	Serial uint32
	// Names and Records count names and records in the zone. Records leaves out derived records, SOA and the zone's NS.
	Names, Records int
}

// soaSet returns the SOA RRset of a zone.
func soaSet(primary, hostmaster wire.Name, serial, negativeTTL uint32) Set {
	data := append([]byte(primary), hostmaster...)
	for _, v := range []uint32{serial, soaRefresh, soaRetry, soaExpire, negativeTTL} {
		data = binary.BigEndian.AppendUint32(data, v)
	}
	return Set{Type: dns.TypeSOA, Count: 1, TTL: negativeTTL, Wire: appendRR(nil, dns.TypeSOA, negativeTTL, string(data))}
}
