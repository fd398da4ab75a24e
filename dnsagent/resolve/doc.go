// Package resolve answers DNS messages: from the table what is the platform's own, from the forwarders what is not, and with a refusal
// what a client may not ask.
//
// A [Resolver] has no sockets and no records of its own. What can be answered at once is answered where the message was read, without
// allocating; what has to be asked upstream says so and is asked for again where waiting is allowed.
package resolve
