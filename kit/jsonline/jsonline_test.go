package jsonline_test

import (
	"encoding/json"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/jsonline"
)

func TestEscapes(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"plain":                     {"a b/c", "a b/c"},
		"quotes and controls":       {"\"\\\n\r\t\x00\x1b[2J\x7f", `\"\\\n\r\t\u0000\u001b[2J\u007f`},
		"what does not print":       {"é\u0085\u2028\u202e€\U000e0001🙂", `é\u0085\u2028\u202e€\udb40\udc01🙂`},
		"bytes that are not UTF-8":  {"a\xff\xe2\x82b\ufffd", `a\ufffd\ufffd\ufffdb` + "\ufffd"},
		"nothing":                   {"", ""},
		"half of a surrogate pair":  {"\xed\xa0\x80", `\ufffd\ufffd\ufffd`},
		"a rune that is cut at end": {"x\xf0\x9f", `x\ufffd\ufffd`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "…"+c.want, string(jsonline.AppendEscaped([]byte("…"), c.in)))
		})
	}
}

func TestClip(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		most int
		want string
	}{
		"short":                         {"abc", 3, "abc"},
		"long":                          {"abcd", 3, "abc"},
		"nothing":                       {"abc", 0, ""},
		"less than a rune":              {"🙂", 3, ""},
		"before the rune":               {"ab🙂", 5, "ab"},
		"behind the rune":               {"🙂b", 4, "🙂"},
		"bytes that are no rune at all": {"\x80\x80\x80\x80\x80\x80", 5, "\x80\x80\x80\x80\x80"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, jsonline.Clip(c.in, c.most)) })
	}
}

// FuzzAppendEscaped checks that encoding/json reads what went in, and that nothing controls a terminal.
func FuzzAppendEscaped(f *testing.F) {
	f.Add("\"\\\b\f\n\r\t\x00\x1f\x7f")
	f.Add("\u0080\u009b\u2028\u202e\ufeff\ufffd\U000e0001\U0010ffff🙂\xff\xe2\x82")
	f.Fuzz(func(t *testing.T, in string) {
		out := jsonline.AppendEscaped(nil, in)
		require.True(t, utf8.Valid(out))
		require.LessOrEqual(t, len(out), 6*len(in))
		for _, r := range string(out) {
			require.True(t, unicode.IsPrint(r), "%U", r)
		}
		var got string
		require.NoError(t, json.Unmarshal([]byte(`"`+string(out)+`"`), &got))
		require.Equal(t, string([]rune(in)), got)
	})
}

func TestEveryByteAtEveryPlace(t *testing.T) {
	for c := range 256 {
		for at := range 20 {
			in := []byte("aAzZ09 ~!#[]^_`|{}.,")
			in[at] = byte(c)
			var got string
			require.NoError(t, json.Unmarshal([]byte(`"`+string(jsonline.AppendEscaped(nil, string(in)))+`"`), &got))
			require.Equal(t, string([]rune(string(in))), got)
			for _, r := range string(jsonline.AppendEscaped(nil, string(in))) {
				require.True(t, unicode.IsPrint(r), "%U", r)
			}
		}
	}
}
