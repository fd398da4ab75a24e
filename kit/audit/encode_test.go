package audit

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FuzzEntry checks that encoding/json reads from a line what went into it, and that nothing in a line controls a terminal.
func FuzzEntry(f *testing.F) {
	f.Add("a.b", "plain", "two words")
	f.Add("\"\\\b\f\n\r\t\x00\x1f\x7f", "\xff\xe2\x82", "\u0080\u009b\u2028\u202e\ufeff\ufffd\U000e0001\U0010ffff🙂")
	f.Add(strings.Repeat("x", 256), strings.Repeat("x", 257), strings.Repeat("x", 254)+"🙂🙂")
	f.Add(strings.Repeat("\x80", 300), strings.Repeat("é", 128), strings.Repeat("é", 129))
	at := time.Date(2026, 10, 1, 12, 0, 0, 1000, time.FixedZone("", 3600))
	f.Fuzz(func(t *testing.T, action, client, detail string) {
		line := appendEntry(nil, at, &Entry{Action: action, Client: client, Detail: detail})
		require.True(t, utf8.Valid(line))
		body, ended := strings.CutSuffix(string(line), "}\n")
		require.True(t, ended)
		require.NotContains(t, body, "\n")
		for _, r := range body {
			require.True(t, unicode.IsPrint(r), "%U in %q", r, line)
		}
		want := map[string]string{"time": "2026-10-01T11:00:00.000001000Z"}
		for name, value := range map[string]string{"action": action, "client": client, "detail": detail} {
			if value != "" {
				want[name] = decoded(t, value)
			}
		}
		var got map[string]string
		require.NoError(t, json.Unmarshal(line, &got))
		require.Equal(t, want, got)
	})
}

// decoded returns what encoding/json makes of a string, cut after the last rune that ends within 256 bytes.
func decoded(t *testing.T, s string) string {
	t.Helper()
	rest := ""
	if len(s) > maxString {
		end := 0
		for i, r := range s {
			size := utf8.RuneLen(r)
			if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd") {
				size = 1
			}
			if i+size > maxString {
				break
			}
			end = i + size
		}
		s, rest = s[:end], "…"
	}
	b, err := json.Marshal(s)
	require.NoError(t, err)
	var out string
	require.NoError(t, json.Unmarshal(b, &out))
	return out + rest
}
