package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/openmep/mep/kit/netguard"
)

// Error is a call that got no response from what it was meant for.
type Error struct {
	// Status is what the client gets: 502, or 504 when a time ran out.
	Status int
	// Detail is the sentence the client sees. It names no address.
	Detail string
	// Cause is for the log only.
	Cause error
}

// Error joins the detail and the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Detail
	}
	return e.Detail + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ClientError is a request that could not be sent for what the client did: its body did not come, not in time or not as it was
// announced, or a header field of it cannot be sent. The target is not blamed for it.
type ClientError struct {
	// Cause is what went wrong: the error of reading the body, such as *http.MaxBytesError, or what cannot be sent.
	Cause error
}

// Error says whose fault it is, and the cause.
func (e *ClientError) Error() string { return "the request cannot be passed on: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *ClientError) Unwrap() error { return e.Cause }

// connectError is a connection that could not be made: nothing of a request was sent.
type connectError struct{ cause error }

func (e *connectError) Error() string { return "connect: " + e.cause.Error() }
func (e *connectError) Unwrap() error { return e.cause }

// failure is why an attempt got no response.
type failure uint8

// The failures.
const (
	failConnect failure = iota
	failConnectTimeout
	failRefused
	failTimeout
	failReset
)

// connected reports whether there was a connection: part of the request may have arrived.
func (f failure) connected() bool { return f == failTimeout || f == failReset }

// failureOf says what kind of failure an error of a transport is.
func failureOf(err error) failure {
	if _, ok := errors.AsType[*netguard.RefusedError](err); ok {
		return failRefused
	}
	if _, ok := errors.AsType[*connectError](err); ok {
		if isTimeout(err) {
			return failConnectTimeout
		}
		return failConnect
	}
	// The transport dials a plain proxy by itself.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "proxyconnect" {
		return failConnect
	}
	if isTimeout(err) {
		return failTimeout
	}
	return failReset
}

func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// asError makes what RoundTrip returns of a failure.
func (f failure) asError(cause error) *Error {
	switch f {
	case failConnectTimeout:
		return &Error{Status: http.StatusGatewayTimeout, Detail: "the service could not be connected to in time", Cause: cause}
	case failRefused:
		return &Error{Status: http.StatusBadGateway, Detail: "the service has an address that the gateway does not call", Cause: cause}
	case failTimeout:
		return &Error{Status: http.StatusGatewayTimeout, Detail: "the service did not respond in time", Cause: cause}
	case failReset:
		return &Error{Status: http.StatusBadGateway, Detail: "the service broke the connection off before it responded", Cause: cause}
	}
	return &Error{Status: http.StatusBadGateway, Detail: "the service could not be connected to", Cause: cause}
}
