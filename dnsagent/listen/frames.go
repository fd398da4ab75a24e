package listen

import (
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// The memory of a connection for what it reads, in octets: at first, and what is kept for the next message.
const firstRead, keptRead = 512, 4096

var (
	errStopped   = errors.New("the server ends")
	errNoMessage = errors.New("a message of length 0")
)

// frames takes messages from a stream, each after its length in two octets (RFC 1035 4.2.2, RFC 7766 8).
type frames struct {
	conn net.Conn
	// whole is how long a message may take to come once its first octet is here.
	whole   time.Duration
	stopped *atomic.Bool

	buf      []byte
	from, to int // what was read and not yet taken
}

// empty says that nothing of a further message is here.
func (f *frames) empty() bool { return f.from == f.to }

// next returns the next message, which is valid until the next call. The stream may be idle for the given time before it begins.
// The error is os.ErrDeadlineExceeded when that is over, and when a message does not end in time.
func (f *frames) next(idle time.Duration) ([]byte, error) {
	waiting, begun := false, false
	for {
		need := prefix
		if have := f.buf[f.from:f.to]; len(have) >= prefix {
			n := int(binary.BigEndian.Uint16(have))
			if n == 0 {
				return nil, errNoMessage
			}
			if need += n; len(have) >= need {
				f.from += need
				return have[prefix:need], nil
			}
		}
		// Set once for a message, or else one octet now and then would keep a connection for ever.
		var err error
		switch {
		case !f.empty() && !begun:
			begun = true
			err = f.deadline(f.whole)
		case f.empty() && !waiting:
			waiting = true
			err = f.deadline(idle)
		}
		if err != nil {
			return nil, err
		}
		f.makeRoom(need)
		n, err := f.conn.Read(f.buf[f.to:])
		f.to += n
		if err != nil && n == 0 {
			return nil, err
		}
	}
}

// deadline sets the deadline of reading. The server sets one that is over after it said that it ends: whichever comes last, the
// reading ends.
func (f *frames) deadline(d time.Duration) error {
	if err := f.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if f.stopped.Load() {
		return errStopped
	}
	return nil
}

// makeRoom makes room for an octet at least of a message that needs so many. The memory grows with what has come, not with
// what was announced.
func (f *frames) makeRoom(need int) {
	if f.empty() {
		f.from, f.to = 0, 0
		if f.buf == nil || len(f.buf) > keptRead {
			f.buf = make([]byte, firstRead)
		}
	}
	if f.to < len(f.buf) {
		return
	}
	buf := f.buf
	if f.from == 0 {
		buf = make([]byte, max(min(2*len(f.buf), need), firstRead))
	}
	f.to = copy(buf, f.buf[f.from:f.to])
	f.from, f.buf = 0, buf
}
