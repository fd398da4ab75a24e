// Package wire reads queries and writes responses in the form they have on the wire, without allocating.
//
// It knows just what a server needs to tell what is asked and to answer with records that are packed already. Whatever takes messages
// apart beyond that uses miekg/dns.
package wire
