package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	// maxEvent bounds an event of a stream, in bytes.
	maxEvent = 4 << 20
	// maxEventID bounds the id of an event; a longer one is ignored.
	maxEventID = 256
)

var errEventTooLarge = errors.New("the platform sends an event that is too large")

// block is a part of an event stream that ends with an empty line.
type block struct {
	// event is the event type, empty when there is none; data is nil when the block holds no event.
	event string
	data  []byte
}

// eventReader reads a stream of server-sent events (WHATWG HTML 9.2.5, 9.2.6).
type eventReader struct {
	r *bufio.Reader
	// lastID is the last id that the stream has sent, initially the id it resumes after.
	lastID string
	// retry is the reconnection time that the stream has requested, 0 when it has requested none.
	retry time.Duration

	begun   bool // the byte order mark has been looked for
	afterCR bool // a line feed that follows belongs to the previous line ending
}

func newEventReader(r io.Reader, lastID string) *eventReader {
	return &eventReader{r: bufio.NewReader(r), lastID: lastID}
}

// next reads the next block. Data at the end of the stream without an empty line is discarded: the event may have been cut off.
func (r *eventReader) next() (block, error) {
	var b block
	id := r.lastID
	size := 0
	for {
		line, err := r.line(maxEvent - size)
		if err != nil {
			return block{}, err
		}
		if len(line) == 0 {
			r.lastID = id
			if b.data != nil {
				b.data = b.data[:len(b.data)-1] // the last line ending
			}
			return b, nil
		}
		size += len(line)
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			b.event = string(value)
		case "data":
			b.data = append(append(b.data, value...), '\n')
		case "id":
			// An empty id would lose the position in the stream.
			if s := string(value); s != "" && sendableID(s) {
				id = s
			}
		case "retry":
			if n, err := strconv.ParseUint(string(value), 10, 31); err == nil && value[0] != '+' {
				r.retry = time.Duration(n) * time.Millisecond
			}
		}
	}
}

// sendableID reports whether an id can be sent back in a header field.
func sendableID(id string) bool {
	return len(id) <= maxEventID && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' })
}

// line reads a line without its ending, which is CR, LF or CRLF. It does not wait for a byte after CR.
func (r *eventReader) line(most int) ([]byte, error) {
	var line []byte
	for {
		c, err := r.r.ReadByte()
		if err != nil {
			return nil, err
		}
		follows := r.afterCR
		r.afterCR = c == '\r'
		switch {
		case c == '\n' && follows:
			continue
		case c == '\n' || c == '\r':
			if !r.begun {
				r.begun = true
				line = bytes.TrimPrefix(line, []byte("\ufeff"))
			}
			return line, nil
		case len(line) >= most:
			return nil, errEventTooLarge
		}
		line = append(line, c)
	}
}
