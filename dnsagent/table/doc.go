// Package table holds the records the DNS server answers from by itself, and says what there is of a name.
//
// A [Table] never changes; a [Writer] makes the next one, which shares with it everything that stays the same. Records come from
// origins, such as the rules of one app instance; an origin's records are replaced together, and those of several origins for one
// name add up. What a query needs is made when the records change: RRsets are packed.
//
// Names within a zone are those of an authoritative server (RFC 1034 4.3.2): a name without records does not exist. Names outside
// zones are overrides: of these the table knows all there is to say, and of their neighbours nothing.
package table
