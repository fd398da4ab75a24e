package audit

import (
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxString is how many bytes of a string are written: much of an entry is what strangers sent.
const maxString = 256

// timeLayout always has nine digits, so that lines sort.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// appendEntry appends the line of an entry. encoding/json would cost several times as much and would pass on what a
// terminal obeys.
func appendEntry(b []byte, at time.Time, e *Entry) []byte {
	b = appendHead(b, at, e.Action, e.Result)
	b = appendMember(b, "caller", e.Caller)
	b = appendMember(b, "client", e.Client)
	b = appendMember(b, "via", e.Via)
	b = appendMember(b, "source", e.Source)
	b = appendMember(b, "target", e.Target)
	b = appendMember(b, "scope", e.Scope)
	b = appendMember(b, "requestId", e.RequestID)
	b = appendMember(b, "detail", e.Detail)
	return append(b, "}\n"...)
}

// appendSuppressed appends the line that stands for denials that were left out.
func appendSuppressed(b []byte, at time.Time, count int) []byte {
	b = appendHead(b, at, ActionSuppressed, Denied)
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

// appendMember appends a member of an object that has one already, unless the value is empty.
func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':', '"')
	kept := clip(value)
	b = appendEscaped(b, kept)
	if len(kept) < len(value) {
		b = append(b, "…"...)
	}
	return append(b, '"')
}

// clip returns the first maxString bytes of s, less a rune that does not fit.
func clip(s string) string {
	if len(s) <= maxString {
		return s
	}
	for n := maxString - 1; n > maxString-utf8.UTFMax; n-- {
		if !utf8.RuneStart(s[n]) {
			continue
		}
		if _, size := utf8.DecodeRuneInString(s[n:]); n+size > maxString {
			return s[:n]
		}
		break
	}
	return s[:maxString]
}

// appendEscaped appends the inside of a JSON string. What does not print is escaped, so that nothing in an entry can move
// the cursor of a terminal or change the direction of the text. Each byte that is not UTF-8 becomes U+FFFD.
func appendEscaped(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			b = appendASCII(b, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if unicode.IsPrint(r) && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
			b = appendUnit(appendUnit(b, r1), r2)
		} else {
			b = appendUnit(b, r)
		}
		i += size
		start = i
	}
	return append(b, s[start:]...)
}

// plain are the ASCII characters that stand for themselves.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

func appendASCII(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return appendUnit(b, rune(c))
}

// appendUnit appends the escape of one UTF-16 code unit.
func appendUnit(b []byte, u rune) []byte {
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', hex[u>>12&0xf], hex[u>>8&0xf], hex[u>>4&0xf], hex[u&0xf])
}
