// Package extauth asks somebody else whether a call may pass: the external authorisation of a policy.
//
// An answer 2xx lets the call pass, and may give header fields along; 401, 402 and 403 refuse it in the words of the answer. Anything
// else is no answer, and neither are redirects, which are not followed: the policy says whether calls pass without one.
//
// Decisions can be remembered. What is compared is everything that was asked but the request id, so that a decision never counts for
// another caller, path or header field than the one it was made for. Equal questions at the same time are asked once; one caller that
// goes away takes nothing from the others that wait. Questions with a body are always asked, each for itself.
package extauth
