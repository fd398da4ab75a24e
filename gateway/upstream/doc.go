// Package upstream calls what routes lead to: it knows endpoints and how well they are, chooses between them, keeps connections
// to them, and repeats what could not be delivered.
//
// A [Profile] is how endpoints are reached: TLS, proxy, time-outs, health. An [Endpoint] is one URL reached that way. Both are
// shared by all routes that ask for equal ones, so that connections and what is known of an endpoint survive a new route table.
// The package knows nothing of routes, services and callers.
//
// Addresses are checked by kit/netguard for every connection, after names were resolved. A proxy resolves names by itself; there
// the target is checked as far as it is an address.
package upstream
