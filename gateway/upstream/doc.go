// Package upstream calls the endpoints that routes lead to. It tracks their health, chooses between them, keeps connections to
// them, and retries requests that could not be delivered.
//
// A [Profile] says how endpoints are reached: TLS, proxy, timeouts and health checks. An [Endpoint] is one URL reached that way.
// Routes that ask for equal ones share them, so that connections and the state of endpoints survive a new route table. The package
// knows nothing of routes, services and callers.
//
// Package kit/netguard checks the address of every connection after names are resolved. When its policy changes, connections to
// addresses that it now refuses are closed. A proxy resolves names itself, so targets behind it are only checked if their host is
// an IP address or localhost.
//
// Requests without a body over HTTP/1.1, without TLS and proxy, are made in the caller's goroutine, and all others by an
// http.Transport, which hands each call to the two goroutines of its connection and back. On a busy machine a direct call costs 15
// µs of CPU time and 34 allocations, including the target's share, and one by an http.Transport 22 µs and 56 (BenchmarkRoundTrip).
// Both use net/http's own Request.Write and ReadResponse, and tests compare their responses.
package upstream
