// Package extauth asks an external authorisation server whether a call may pass, as a policy demands.
//
// A 2xx response lets the call pass, and may add header fields to it; 401, 402 and 403 refuse the call, with the body of the response. Any
// other response, including a redirect, is unusable. Redirects are not followed. The policy decides whether calls pass without a usable
// response.
//
// Decisions can be cached. The cache key is everything that was asked except the request id, so that a decision never applies to another
// caller, path or header field than the one it was made for. Concurrent equal questions share one request; a caller that goes away does not
// affect the others that wait. Questions with a body are never cached or shared.
package extauth
