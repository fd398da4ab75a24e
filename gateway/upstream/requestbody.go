package upstream

import (
	"errors"
	"io"
	"sync/atomic"
)

// The states of a requestBody: a set of bits.
const (
	bodyTouched = 1 << iota // some of the body was read
	bodyClosed
	bodySettled // a response arrived, so no other attempt needs the body
	bodyRevoked // another attempt has the body
)

var errRevoked = errors.New("the request is being sent elsewhere")

// requestBody is the body of a request for one attempt. It knows whether another attempt can have it, and closes it only if not.
type requestBody struct {
	from  io.ReadCloser
	state atomic.Uint32
	fault atomic.Pointer[error] // the first error of reading the body
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.state.Or(bodyTouched)&bodyRevoked != 0 {
		return 0, errRevoked
	}
	n, err := b.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.blame(err)
	}
	return n, err
}

// blame records the first read error, unless the end of the attempt caused it.
func (b *requestBody) blame(err error) {
	if b.state.Load()&(bodyClosed|bodyRevoked) == 0 {
		b.fault.CompareAndSwap(nil, &err)
	}
}

// Close implements io.Closer.
func (b *requestBody) Close() error {
	if was := b.state.Or(bodyClosed); was&(bodyTouched|bodySettled) == 0 || was&bodyRevoked != 0 {
		return nil
	}
	return b.from.Close()
}

// settle records that there will be no other attempt.
func (b *requestBody) settle() {
	if b.from != nil && b.state.Or(bodySettled)&(bodyClosed|bodyTouched) == bodyClosed {
		_ = b.from.Close()
	}
}

// revoke takes the body away from the attempt and returns true, unless some of it was read.
func (b *requestBody) revoke() bool {
	for {
		was := b.state.Load()
		if was&bodyTouched != 0 {
			return false
		}
		if b.state.CompareAndSwap(was, was|bodyRevoked) {
			return true
		}
	}
}
