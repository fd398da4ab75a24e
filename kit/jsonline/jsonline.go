// Package jsonline appends the parts of JSON objects to log lines. It costs a fraction of encoding/json, and lets no character through
// that controls a terminal.
package jsonline

import (
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Clip returns the first most bytes of s, without an incomplete rune at the end.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for n := most - 1; n >= 0 && n > most-utf8.UTFMax; n-- {
		if !utf8.RuneStart(s[n]) {
			continue
		}
		if _, size := utf8.DecodeRuneInString(s[n:]); n+size > most {
			return s[:n]
		}
		break
	}
	return s[:most]
}

// AppendEscaped appends the contents of a JSON string. It escapes what is not printable, so that nothing in a line can move the cursor
// of a terminal or change the direction of the text. Each byte that is not UTF-8 becomes U+FFFD. One byte becomes at most six.
func AppendEscaped(b []byte, s string) []byte {
	start := 0
	for i := plainWords(s); i < len(s); {
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

// plainWords returns the length of the start of s that needs no escaping, as far as it is found eight bytes at a time.
func plainWords(s string) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		x := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		quote, backslash, deleted := x^'"'*ones, x^'\\'*ones, x^0x7f*ones
		// The top bit of a byte is set in x beyond ASCII, and otherwise in a difference that underflows.
		if (x|(x-' '*ones)|(quote-ones)|(backslash-ones)|(deleted-ones))&tops != 0 {
			break
		}
	}
	return i
}

// plain marks the ASCII characters that need no escaping.
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
