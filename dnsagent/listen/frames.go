package listen

import (
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// Sizes of a connection's read buffer in octets: the initial size, and the largest kept for the next message.
const firstRead, keptRead = 512, 4096

var (
	errStopped   = errors.New("the server ends")
	errNoMessage = errors.New("a message of length 0")
)

// frames reads messages from a stream, each preceded by its length in two octets (RFC 1035 4.2.2, RFC 7766 8).
type frames struct {
	conn net.Conn
	// whole is how long a message may take to arrive once its first octet is here.
	whole   time.Duration
	stopped *atomic.Bool

	buf      []byte
	from, to int // buf[from:to] has been read but not yet returned
}

// empty reports whether nothing of a further message has been read.
func (f *frames) empty() bool { return f.from == f.to }

// next returns the next message, valid until the next call. The stream may be idle for the given time before the message
// begins. The error is os.ErrDeadlineExceeded if it is idle for longer, or if the message is not complete in time.
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
		// Each deadline is set once per message, or an octet now and then would keep a connection open for ever.
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

// deadline sets the read deadline to d from now. The server sets stopped, then a deadline in the past: whichever deadline is
// set last, reading ends.
func (f *frames) deadline(d time.Duration) error {
	if err := f.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if f.stopped.Load() {
		return errStopped
	}
	return nil
}

// makeRoom makes room for at least one more octet of a message that takes need octets. The buffer grows with what has arrived,
// not with the announced length.
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
