// Package forward answers DNS questions by asking other servers, and remembers what they said.
//
// A [Forwarder] knows upstreams by zone and asks them in order, those in good health first, over UDP with TCP behind it or over TLS
// (RFC 7858). It believes little: an answer counts only when it is for the very question that was sent, and of an answer only what
// follows from the question is kept. Equal questions that come at the same time are asked once. Answers are kept as long as they are
// good, and for some time longer for the case that no upstream answers (RFC 8767).
//
// It does not know who asks, what the server knows by itself, nor how a response is framed.
package forward
