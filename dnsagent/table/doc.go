// Package table holds the records that the DNS server answers from by itself, and looks up names in them.
//
// A [Table] never changes; a [Writer] makes the next one, which shares with it everything that stays the same. Records come from
// origins, such as the rules of one app instance. The records of an origin are replaced together, and those of several origins
// for one name add up. Everything a query needs is prepared when the records change: RRsets are packed.
//
// Names within a zone are those of an authoritative server (RFC 1034 4.3.2): a name without records does not exist. Names outside
// zones are overrides: the table knows everything about them, and nothing about their neighbours.
package table
