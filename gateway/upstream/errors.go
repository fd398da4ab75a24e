package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/openmep/mep/kit/netguard"
)

// Error is the error of a call that got no response from its target.
type Error struct {
	// Status is the status for the client: 502, or 504 after a timeout.
	Status int
	// Detail is a sentence for the client. It names no address.
	Detail string
	// Cause is for the log only.
	Cause error
}

// Error returns the detail and the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Detail
	}
	return e.Detail + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ClientError is the error of a request that could not be sent because of the client: the body did not arrive in time or not as
// announced, or a header field cannot be sent. The target is not blamed for it.
type ClientError struct {
	// Cause is the error of reading the body, such as *http.MaxBytesError, or says what cannot be sent.
	Cause error
}

// Error says that the client is at fault, and returns the cause.
func (e *ClientError) Error() string { return "the request cannot be passed on: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *ClientError) Unwrap() error { return e.Cause }

// connectError is the error of a connection that could not be made. Nothing of the request was sent.
type connectError struct{ cause error }

func (e *connectError) Error() string { return "connect: " + e.cause.Error() }
func (e *connectError) Unwrap() error { return e.cause }

// failure is the reason why an attempt got no response.
type failure uint8

const (
	failConnect failure = iota
	failConnectTimeout
	failRefused
	failTimeout
	failReset
)

// connected reports whether a connection had been made, so that part of the request may have arrived.
func (f failure) connected() bool { return f == failTimeout || f == failReset }

// failureOf returns the failure that an error of a transport stands for.
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
	// The transport itself connects to the proxy for targets without TLS.
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

// asError returns the error that RoundTrip returns for a failure.
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
