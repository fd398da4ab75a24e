// Package upstream calls what routes lead to: it knows endpoints and how well they are, chooses between them, keeps connections
// to them, and repeats what could not be delivered.
//
// A [Profile] is how endpoints are reached: TLS, proxy, time-outs, health. An [Endpoint] is one URL reached that way. Both are
// shared by all routes that ask for equal ones, so that connections and what is known of an endpoint survive a new route table.
// The package knows nothing of routes, services and callers.
//
// Addresses are checked by kit/netguard for every connection, after names were resolved, and again when the policy changes: a
// connection to what is refused then is closed. A proxy resolves names by itself; there the target is checked as far as it is an
// address.
//
// Requests without a body over HTTP/1.1, without TLS and proxy, are made in the goroutine of the caller, all others by an
// http.Transport. That hands each call over to the two goroutines of its connection and back. On a busy machine a call made directly
// costs 15 µs of processor time and 34 allocations, with the target's part in it, one by an http.Transport 22 µs and 56
// (BenchmarkRoundTrip). Both send and read by net/http's own Request.Write and ReadResponse, and tests compare them response by
// response.
package upstream
