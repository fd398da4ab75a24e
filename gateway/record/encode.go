package record

import (
	"bytes"
	"strconv"
	"time"

	"github.com/openmep/mep/kit/jsonline"
)

// The maximum number of bytes written of paths and queries, and of other strings. Clients choose most of them.
const (
	maxPath   = 1024
	maxString = 256
)

const (
	// timeLayout always has six decimal places, so that lines sort.
	timeLayout  = "2006-01-02T15:04:05.000000Z"
	secondsPart = "2006-01-02T15:04:05"
	cutMark     = "…"
	digits      = "0123456789"
)

// line is a buffer for encoding lines. It is reused, so that lines cost no memory.
type line struct {
	buf     []byte
	decoded []byte // a percent-decoded segment or parameter
	careful bool   // there may be a secret where none belongs

	second int64  // the Unix time of stamp
	stamp  []byte // the time up to the second, formatted
}

// encode writes the line of an entry to buf. It searches each string for secrets only if the line has what looks like the start of one.
func (w *line) encode(m *masks, e *Entry) {
	w.careful = false
	w.append(m, e)
	if endsIn(w.buf, 'J', "ey") || endsIn(w.buf, '_', "mepk") {
		w.careful = true
		w.append(m, e)
	}
}

// endsIn reports whether text followed by last occurs in b. It is fast if last is rare.
func endsIn(b []byte, last byte, text string) bool {
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], last)
		if i < 0 {
			return false
		}
		if i += from; i >= len(text) && string(b[i-len(text):i]) == text {
			return true
		}
		from = i + 1
	}
}

func (w *line) append(m *masks, e *Entry) {
	b := append(w.buf[:0], `{"time":"`...)
	b = append(w.appendTime(b, e.Time), '"')
	b = w.member(b, `,"requestId":"`, e.RequestID)
	if e.Client.IsValid() {
		b = append(b, `,"client":"`...)
		b = e.Client.WithZone("").Unmap().AppendTo(b)
		b = append(b, '"')
	}
	b = w.member(b, `,"consumer":"`, e.Consumer)
	b = w.member(b, `,"via":"`, e.Via)
	b = w.member(b, `,"service":"`, e.Service)
	b = w.member(b, `,"instance":"`, e.Instance)
	b = w.member(b, `,"route":"`, e.Route)
	b = w.member(b, `,"method":"`, e.Method)
	b = w.member(b, `,"host":"`, e.Host)
	b = w.path(b, m, e.Path, e.Service)
	b = w.query(b, m, e.Query)
	b = w.member(b, `,"proto":"`, e.Proto)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(e.Status), 10)
	b = w.member(b, `,"reason":"`, e.Reason)
	b = w.member(b, `,"upstream":"`, e.Upstream)
	if e.Attempts != 0 {
		b = append(b, `,"attempts":`...)
		b = strconv.AppendInt(b, int64(e.Attempts), 10)
	}
	b = appendMillis(b, `,"authMillis":`, e.Auth)
	b = appendMillis(b, `,"heldMillis":`, e.Held)
	b = appendMillis(b, `,"firstByteMillis":`, e.FirstByte)
	b = appendMillis(b, `,"totalMillis":`, max(e.Total, time.Microsecond))
	b = append(b, `,"bytesIn":`...)
	b = strconv.AppendInt(b, e.BytesIn, 10)
	b = append(b, `,"bytesOut":`...)
	b = strconv.AppendInt(b, e.BytesOut, 10)
	b = w.member(b, `,"userAgent":"`, e.UserAgent)
	b = w.member(b, `,"traceId":"`, e.TraceID)
	w.buf = append(b, "}\n"...)
}

// appendTime appends a time. Most lines are in the same second as the previous line.
func (w *line) appendTime(b []byte, t time.Time) []byte {
	if s := t.Unix(); s != w.second || len(w.stamp) == 0 {
		w.second, w.stamp = s, t.UTC().AppendFormat(w.stamp[:0], secondsPart)
	}
	b = append(b, w.stamp...)
	micros := t.Nanosecond() / 1000
	b = append(b, '.', digits[micros/100000], digits[micros/10000%10], digits[micros/1000%10])
	return append(b, digits[micros/100%10], digits[micros/10%10], digits[micros%10], 'Z')
}

// member appends head, a string and a closing quote, unless the string is empty.
func (w *line) member(b []byte, head, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, head...)
	t := text{b: b, room: maxString}
	if w.careful && secret(value) {
		t.add(mask)
	} else {
		t.add(value)
	}
	return append(t.end(), '"')
}

// appendMillis appends a duration in milliseconds with three decimal places, unless it is shorter than a microsecond.
func appendMillis(b []byte, head string, d time.Duration) []byte {
	micros := int64(d / time.Microsecond)
	if micros <= 0 {
		return b
	}
	b = append(b, head...)
	b = strconv.AppendInt(b, micros/1000, 10)
	rest := micros % 1000
	return append(b, '.', digits[rest/100], digits[rest/10%10], digits[rest%10])
}

// text is a string that is appended in pieces, as long as there is room.
type text struct {
	b    []byte
	room int
	cut  bool
}

func (t *text) add(s string) {
	if t.cut {
		return
	}
	if len(s) > t.room {
		s, t.cut = jsonline.Clip(s, t.room), true
	}
	t.room -= len(s)
	t.b = jsonline.AppendEscaped(t.b, s)
}

// end marks a text that was cut, and returns the whole buffer.
func (t *text) end() []byte {
	if t.cut {
		t.b = append(t.b, cutMark...)
	}
	return t.b
}
