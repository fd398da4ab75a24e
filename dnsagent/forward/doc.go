// Package forward answers DNS questions by asking upstream servers, and caches their answers.
//
// A [Forwarder] knows upstreams by zone and asks them in order, healthy ones first, over UDP with fallback to TCP, or over TLS (RFC
// 7858). It trusts little: a response counts only when it is for the very question that was sent, and only what follows from the question
// is kept of it. Equal questions in flight are asked once. Answers are kept for their lifetime, and for some time longer in case no
// upstream answers (RFC 8767).
//
// The package does not know who the client is, what the server knows locally, or how a response is framed.
package forward
