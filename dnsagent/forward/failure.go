package forward

import (
	"errors"

	"github.com/miekg/dns"
)

// Causes of a Failure: why a question was not answered.
var (
	// ErrOverload means that the question was not asked because too many others are in flight.
	ErrOverload = errors.New("too many questions are under way")
	// ErrLoop means that all upstreams for the name ask this server in turn.
	ErrLoop = errors.New("the upstreams ask this server in turn")
	// ErrNoUpstream means that the name is not forwarded.
	ErrNoUpstream = errors.New("there is no upstream for the name")
	// ErrClosed means that Run is ending or has ended.
	ErrClosed = errors.New("the forwarder has ended")
	// ErrTimeout means that no upstream answered in time.
	ErrTimeout = errors.New("no upstream answered in time")
	// ErrUnusable means that no upstream had a usable answer.
	ErrUnusable = errors.New("no upstream had an answer")
	// ErrNetwork means that the upstreams cannot be reached.
	ErrNetwork = errors.New("no upstream can be reached")
)

// Failure is the error of a question that is answered with SERVFAIL.
type Failure struct {
	// Code is the INFO-CODE of RFC 8914.
	Code uint16
	// Text may be sent to the client.
	Text string
	// Cause is one of the errors of this package.
	Cause error
	// Detail is for the log: what the last upstream asked did wrong. It may be nil.
	Detail error
}

func newFailure(cause, detail error) *Failure {
	code := dns.ExtendedErrorCodeNoReachableAuthority
	switch {
	case errors.Is(cause, ErrOverload):
		code = dns.ExtendedErrorCodeOther
	case errors.Is(cause, ErrNoUpstream):
		code = dns.ExtendedErrorCodeNotAuthoritative
	case errors.Is(cause, ErrClosed):
		code = dns.ExtendedErrorCodeNotReady
	case errors.Is(cause, ErrNetwork):
		code = dns.ExtendedErrorCodeNetworkError
	}
	return &Failure{Code: code, Text: cause.Error(), Cause: cause, Detail: detail}
}

// Error returns the text and the detail.
func (f *Failure) Error() string {
	if f.Detail != nil {
		return f.Text + ": " + f.Detail.Error()
	}
	return f.Text
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Cause }

// passing reports whether the failure says nothing about the question, and so is not remembered.
func (f *Failure) passing() bool {
	return errors.Is(f.Cause, ErrOverload) || errors.Is(f.Cause, ErrClosed) || errors.Is(f.Cause, ErrNoUpstream)
}
