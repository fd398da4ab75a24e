// Package resolve answers DNS messages: from the table for the platform's own names, from the forwarders for other names, and with a
// refusal for what a client may not ask.
//
// A [Resolver] has no sockets and no records of its own. What can be answered at once is answered where the message was read, without
// allocating; for what has to be asked upstream, it says so, and is called again where waiting is allowed.
package resolve
