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

// block is a part of a stream of events that ends in an empty line.
type block struct {
	// event is its type, empty when it has none; data is nil when there is no event in it.
	event string
	data  []byte
}

// eventReader reads a stream of server-sent events (WHATWG HTML 9.2.5, 9.2.6).
type eventReader struct {
	r *bufio.Reader
	// lastID is the id of the last event, or that of a block without one.
	lastID string
	// retry is the time after which to come back when the stream is lost, 0 when nothing was said.
	retry time.Duration

	begun   bool // the mark at the beginning was looked for
	afterCR bool // a line feed that comes now belongs to the line before
}

func newEventReader(r io.Reader, lastID string) *eventReader {
	return &eventReader{r: bufio.NewReader(r), lastID: lastID}
}

// next reads the next block. What is left at the end of the stream is no block: the event may have been cut off.
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
				b.data = b.data[:len(b.data)-1] // the last line end
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
			// An empty one would make the stream forget where it is.
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

// sendableID reports whether an id can be sent back in a header.
func sendableID(id string) bool {
	return len(id) <= maxEventID && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' })
}

// line reads a line without its end, which is CR, LF or both. It does not wait for what comes after a CR.
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
