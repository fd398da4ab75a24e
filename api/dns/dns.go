// Package dns holds the wire types of the management API of the platform's DNS server. The paths and the members of a record are
// those of EdgeGallery's DNS server; extensions are marked.
package dns

import "time"

// Base is the base path of the resources.
const Base = "/mep/dns_server_mgmt/v1"

// Record types.
const (
	TypeA     = "A"
	TypeAAAA  = "AAAA"
	TypeCNAME = "CNAME"
	TypePTR   = "PTR"
	TypeSRV   = "SRV"
	TypeTXT   = "TXT"
)

// Types lists the record types in order. It must not be changed.
var Types = []string{TypeA, TypeAAAA, TypeCNAME, TypePTR, TypeSRV, TypeTXT}

// ClassIN is the only supported class.
const ClassIN = "IN"

// Limits of records and requests.
const (
	// MaxTTL is the longest TTL in seconds (RFC 2181 section 8).
	MaxTTL = 1<<31 - 1
	// MaxRData is the maximum number of values of a record.
	MaxRData = 256
	// MaxSize is the maximum size in octets of a record's values in a DNS message, which has 65535 octets and holds more.
	MaxSize = 64000
	// MaxBatch is the maximum number of records that one request creates.
	MaxBatch = 100
	// MaxPage is the maximum number of records on one page of a list.
	MaxPage = 1000
	// DefaultPage is the maximum when the request names none.
	DefaultPage = 100
)

// Record holds all records of one name and type, an RRset (RFC 2181 5).
type Record struct {
	// Name is a fully qualified domain name, with or without a trailing dot; the first label may be "*" (RFC 4592). Responses have
	// it in lower case.
	Name string `json:"name"`
	// Type is A or AAAA or, beyond EdgeGallery, CNAME, PTR, SRV or TXT.
	Type string `json:"type"`
	// Class is IN, the default.
	Class string `json:"class,omitempty"`
	// TTL is the time to live in seconds, 1 to 2147483647.
	TTL uint32 `json:"ttl"`
	// RData holds 1 to 256 values: addresses for A and AAAA; one name for CNAME; names for PTR; "priority weight port target" for
	// SRV; texts for TXT.
	RData []string `json:"rData"`
	// Zone is ".", the default, or a name that Name is within. It groups records.
	Zone string `json:"zone,omitempty"`
	// View is the name of the configured view whose clients alone see the record; if empty, all clients see it. Beyond EdgeGallery.
	View string `json:"view,omitempty"`
	// NotServed is why the record, though stored, is not answered; empty if it is. Set in responses, ignored in requests. Beyond
	// EdgeGallery.
	NotServed string `json:"notServed,omitempty"`
}

// Deleted is the result of removing records by a filter.
type Deleted struct {
	// Records is the number of removed records.
	Records int `json:"records"`
}

// Zone is a zone that the DNS server is authoritative for.
type Zone struct {
	// Name is the name of the zone in lower case, with a trailing dot.
	Name string `json:"name"`
	// Serial is the serial number of the zone's SOA record.
	Serial uint32 `json:"serial"`
	// Names is the number of names in the zone that have records; Records is the number of these records, of any origin.
	Names   int `json:"names"`
	Records int `json:"records"`
}

// Upstream is a DNS server that queries are forwarded to.
type Upstream struct {
	// Address is the configured address of the upstream.
	Address string `json:"address"`
	// Zone is the zone whose queries the upstream receives; "." for the default.
	Zone string `json:"zone"`
	// Up reports whether the upstream answers and does not lead back to this server. One that was never queried counts as up.
	Up bool `json:"up"`
	// FailingSince is when the upstream entered its present state; zero while it is up.
	FailingSince time.Time `json:"failingSince,omitzero"`
	// LastError is why the upstream is not up, or why its last query failed; empty if it is up and the last query succeeded.
	LastError string `json:"lastError,omitempty"`
	// Queries is the number of queries sent since the start; Failures is how many of them got no response.
	Queries  uint64 `json:"queries"`
	Failures uint64 `json:"failures"`
	// CaseLost says that the upstream does not preserve the case of names, and is queried without random case.
	CaseLost bool `json:"caseLost,omitempty"`
}

// Flushed is the result of flushing the cache.
type Flushed struct {
	// Entries is the number of removed entries.
	Entries int `json:"entries"`
}

// TraceRequest is a query whose answer is to be explained.
type TraceRequest struct {
	// Name is a domain name in lower case, with a trailing dot.
	Name string
	// Type is a record type in capitals, such as A, or TYPE and a number (RFC 3597 5).
	Type string
	// Client is the address of the hypothetical client, which determines the view and whether queries are forwarded.
	Client string
}

// Source is where the answer to a query comes from.
type Source string

// Sources of answers.
const (
	// SourceTable stands for the platform's own records.
	SourceTable Source = "table"
	// SourceCache stands for an earlier answer of an upstream.
	SourceCache Source = "cache"
	// SourceUpstream stands for an upstream, queried for this answer.
	SourceUpstream Source = "upstream"
	// SourceNone means that the query is refused.
	SourceNone Source = "none"
)

// Trace explains the answer to a query.
type Trace struct {
	// Name, Type and Client are those of the request.
	Name   string `json:"name"`
	Type   string `json:"type"`
	Client string `json:"client"`
	// View is the client's view; empty if it has none.
	View string `json:"view,omitempty"`
	// Source is where the answer comes from.
	Source Source `json:"source"`
	// Zone is the zone, of the platform or of the forwarders, that the name is within; empty if there is none.
	Zone string `json:"zone,omitempty"`
	// RCode is the name of the response code, such as NOERROR or NXDOMAIN.
	RCode string `json:"rcode"`
	// Authoritative is the AA bit of the answer.
	Authoritative bool `json:"authoritative"`
	// Wildcard is the wildcard that the answer comes from; empty if there is none.
	Wildcard string `json:"wildcard,omitempty"`
	// Steps explain in sentences how the answer came about.
	Steps []string `json:"steps"`
	// Records are the records of the answer, in order.
	Records []TraceRecord `json:"records"`
}

// TraceRecord is a record of an answer.
type TraceRecord struct {
	// Record is the record in zone file format (RFC 1035 5.1).
	Record string `json:"record"`
	// Origin is where the record comes from: the ID of a DNS rule, "record" for a record of the management API, and so on.
	Origin string `json:"origin,omitempty"`
}
