package upstream

import (
	"errors"
	"io"
	"sync/atomic"
)

// The states of a requestBody, which add up.
const (
	bodyTouched = 1 << iota // something was read of it
	bodyClosed
	bodySettled // there is a response: it is not needed for another attempt
	bodyRevoked // another attempt has it
)

var errRevoked = errors.New("the request is being sent elsewhere")

// requestBody is the body of a request for one attempt. It tells whether another one can have it, and closes it only when not.
type requestBody struct {
	from  io.ReadCloser
	state atomic.Uint32
	fault atomic.Pointer[error] // why it could not be read
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

// blame remembers the first error of reading, unless it comes from the end of the attempt.
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

// settle says that there will be no other attempt.
func (b *requestBody) settle() {
	if b.from != nil && b.state.Or(bodySettled)&(bodyClosed|bodyTouched) == bodyClosed {
		_ = b.from.Close()
	}
}

// revoke takes the body away from the attempt, unless something was read of it.
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
