package audit

import (
	"strconv"
	"time"

	"github.com/openmep/mep/kit/jsonline"
)

// maxString is how many bytes of a string are written: much of an entry comes from strangers.
const maxString = 256

// timeLayout always has nine digits, so that lines sort.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// appendEntry appends the line of an entry. encoding/json would cost several times as much, and would pass on
// what controls a terminal.
func appendEntry(b []byte, at time.Time, e *Entry) []byte {
	b = appendHead(b, at, e.Action, e.Result)
	b = appendMember(b, "caller", e.Caller)
	b = appendMember(b, "client", e.Client)
	b = appendMember(b, "via", e.Via)
	b = appendMember(b, "source", e.Source)
	b = appendMember(b, "target", e.Target)
	b = appendMember(b, "scope", e.Scope)
	b = appendMember(b, "requestId", e.RequestID)
	b = appendMember(b, "listener", e.Listener)
	b = appendMember(b, "detail", e.Detail)
	return append(b, "}\n"...)
}

// appendSuppressed appends the line that stands for suppressed denials at a listener.
func appendSuppressed(b []byte, at time.Time, listener string, count int) []byte {
	b = appendHead(b, at, ActionSuppressed, Denied)
	b = appendMember(b, "listener", listener)
	b = append(b, `,"count":`...)
	b = strconv.AppendInt(b, int64(count), 10)
	return append(b, "}\n"...)
}

func appendHead(b []byte, at time.Time, action, result string) []byte {
	b = append(b, `{"time":"`...)
	b = at.UTC().AppendFormat(b, timeLayout)
	b = append(b, '"')
	b = appendMember(b, "action", action)
	return appendMember(b, "result", result)
}

// appendMember appends a member to an object that already has one, unless the value is empty.
func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':', '"')
	kept := jsonline.Clip(value, maxString)
	b = jsonline.AppendEscaped(b, kept)
	if len(kept) < len(value) {
		b = append(b, "…"...)
	}
	return append(b, '"')
}
