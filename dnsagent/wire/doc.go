// Package wire parses queries and builds responses in wire form, without allocating.
//
// It covers just what a server needs to understand the question and to answer with records that are already packed. Code that
// parses messages beyond that uses miekg/dns.
package wire
