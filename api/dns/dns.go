// Package dns holds the wire types of the management of the platform's DNS server. The paths and the members of a record are
// those of EdgeGallery's DNS server; what goes beyond them is marked.
package dns

import "time"

// Base is where the resources are, below the address of the listener.
const Base = "/mep/dns_server_mgmt/v1"

// The types of records.
const (
	TypeA     = "A"
	TypeAAAA  = "AAAA"
	TypeCNAME = "CNAME"
	TypePTR   = "PTR"
	TypeSRV   = "SRV"
	TypeTXT   = "TXT"
)

// Types lists the types of records, in their order. It must not be changed.
var Types = []string{TypeA, TypeAAAA, TypeCNAME, TypePTR, TypeSRV, TypeTXT}

// ClassIN is the only class there is.
const ClassIN = "IN"

// Bounds on records and requests.
const (
	// MaxTTL is the longest time to live in seconds (RFC 2181 section 8).
	MaxTTL = 1<<31 - 1
	// MaxRData is how many values a record has at most.
	MaxRData = 256
	// MaxSize is how many octets the values of a record take at most in a DNS message, which has 65535 octets and more in it.
	MaxSize = 64000
	// MaxBatch is how many records one request creates at most.
	MaxBatch = 100
	// MaxPage is how many records one page of a list has at most.
	MaxPage = 1000
	// DefaultPage is how many it has at most when the request does not say.
	DefaultPage = 100
)

// Record is all records of one name and type, an RRset (RFC 2181 5).
type Record struct {
	// Name is a fully qualified domain name, with or without the dot at its end; the first label may be "*" (RFC 4592).
	// It is answered in lower case.
	Name string `json:"name"`
	// Type is A or AAAA or, beyond EdgeGallery, CNAME, PTR, SRV or TXT.
	Type string `json:"type"`
	// Class is IN, the default.
	Class string `json:"class,omitempty"`
	// TTL is in seconds, 1 to 2147483647.
	TTL uint32 `json:"ttl"`
	// RData are 1 to 256 values: addresses of A and AAAA; one name of CNAME; names of PTR; "priority weight port target" of
	// SRV; texts of TXT.
	RData []string `json:"rData"`
	// Zone is ".", the default, or a name that Name is within. It groups records.
	Zone string `json:"zone,omitempty"`
	// View is the name of the configured view whose clients alone see the record; empty: all do. Beyond EdgeGallery.
	View string `json:"view,omitempty"`
	// NotServed is why the record is not answered, though it is stored; empty when it is answered. It is told, and not taken. Beyond
	// EdgeGallery.
	NotServed string `json:"notServed,omitempty"`
}

// Deleted says what the removal of records by a filter did.
type Deleted struct {
	// Records is how many records are gone.
	Records int `json:"records"`
}

// Zone is a zone that the DNS server is authoritative for.
type Zone struct {
	// Name is the name of the zone in lower case, with the dot at its end.
	Name string `json:"name"`
	// Serial is that of its SOA record.
	Serial uint32 `json:"serial"`
	// Names is how many names in it have records, Records how many records these have, wherever they come from.
	Names   int `json:"names"`
	Records int `json:"records"`
}

// Upstream is a DNS server that questions are forwarded to.
type Upstream struct {
	// Address is where it is asked, as it is configured.
	Address string `json:"address"`
	// Zone is the name below which it is asked; "." for the default.
	Zone string `json:"zone"`
	// Up reports whether it answers; one that was never asked counts as up.
	Up bool `json:"up"`
	// FailingSince is when it stopped to answer, zero while it is up.
	FailingSince time.Time `json:"failingSince,omitzero"`
	// LastError is why the last question that failed did, empty when none has.
	LastError string `json:"lastError,omitempty"`
	// Queries is how many questions it was asked since the start, Failures how many of these failed.
	Queries  uint64 `json:"queries"`
	Failures uint64 `json:"failures"`
	// CaseLost says that it does not keep the capitals of names, and is asked without random ones.
	CaseLost bool `json:"caseLost,omitempty"`
}

// Flushed says what a flush of the cache did.
type Flushed struct {
	// Entries is how many entries are gone.
	Entries int `json:"entries"`
}

// TraceRequest is a question whose answer is to be explained.
type TraceRequest struct {
	// Name is a domain name in lower case, with the dot at its end.
	Name string
	// Type is a type of record in capitals, such as A, or TYPE and a number (RFC 3597 5).
	Type string
	// Client is the address of who would ask: it decides about the view, and about forwarding.
	Client string
}

// Source is where the answer to a question comes from.
type Source string

// The sources.
const (
	// SourceTable are the platform's own records.
	SourceTable Source = "table"
	// SourceCache is what an upstream answered before.
	SourceCache Source = "cache"
	// SourceUpstream is an upstream, asked now.
	SourceUpstream Source = "upstream"
	// SourceNone is no source: the question is refused.
	SourceNone Source = "none"
)

// Trace explains the answer to a question.
type Trace struct {
	// Name, Type and Client are those of the question.
	Name   string `json:"name"`
	Type   string `json:"type"`
	Client string `json:"client"`
	// View is the view the client belongs to, empty when it belongs to none.
	View string `json:"view,omitempty"`
	// Source is where the answer comes from.
	Source Source `json:"source"`
	// Zone is the zone of the platform, or of the forwarders, that the name is within; empty when there is none.
	Zone string `json:"zone,omitempty"`
	// RCode is the response code by its name, such as NOERROR or NXDOMAIN.
	RCode string `json:"rcode"`
	// Authoritative is the AA bit of the answer.
	Authoritative bool `json:"authoritative"`
	// Wildcard is the wildcard that the answer comes from, empty when it comes from none.
	Wildcard string `json:"wildcard,omitempty"`
	// Steps say in sentences how the answer came about.
	Steps []string `json:"steps"`
	// Records are those of the answer, in its order.
	Records []TraceRecord `json:"records"`
}

// TraceRecord is a record of an answer.
type TraceRecord struct {
	// Record is the record as zone files have it (RFC 1035 5.1).
	Record string `json:"record"`
	// Origin is where it comes from: the id of a DNS rule, "record" for one of the management, and so on.
	Origin string `json:"origin,omitempty"`
}
