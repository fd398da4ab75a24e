package client

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

// blocks reads all blocks of a stream.
func blocks(t testing.TB, r io.Reader) (list []block, reader *eventReader, err error) {
	t.Helper()
	reader = newEventReader(r, "0")
	for {
		b, err := reader.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return list, reader, err
		}
		list = append(list, b)
	}
}

func TestStreamsAreReadAsTheirSpecificationSays(t *testing.T) {
	tests := map[string]struct {
		text string
		want []block
		id   string
	}{
		"nothing":                     {"", nil, "0"},
		"an event":                    {"id: 7\nevent: app\ndata: {}\n\n", []block{{"app", []byte("{}")}}, "7"},
		"without a space":             {"id:7\nevent:app\ndata:{}\n\n", []block{{"app", []byte("{}")}}, "7"},
		"with two spaces":             {"data:  a\n\n", []block{{"", []byte(" a")}}, "0"},
		"several lines of data":       {"data: a\ndata\ndata: b\n\n", []block{{"", []byte("a\n\nb")}}, "0"},
		"empty data":                  {"data\n\n", []block{{"", []byte{}}}, "0"},
		"an id without an event":      {":\nid: 8\n\n", []block{{}}, "8"},
		"an event keeps the id":       {"id: 8\n\ndata: a\n\n", []block{{}, {"", []byte("a")}}, "8"},
		"an empty id":                 {"id\ndata: a\n\n", []block{{"", []byte("a")}}, "0"},
		"an id with a NUL":            {"id: 8\x00\ndata: a\n\n", []block{{"", []byte("a")}}, "0"},
		"an id that cannot be sent":   {"id: \u00e9\ndata: a\n\n", []block{{"", []byte("a")}}, "0"},
		"an id that is too long":      {"id: " + strings.Repeat("8", 257) + "\ndata: a\n\n", []block{{"", []byte("a")}}, "0"},
		"carriage returns":            {"id: 7\rdata: a\r\rdata: b\r\r", []block{{"", []byte("a")}, {"", []byte("b")}}, "7"},
		"carriage returns and feeds":  {"id: 7\r\ndata: a\r\n\r\ndata: b\r\n\r\n", []block{{"", []byte("a")}, {"", []byte("b")}}, "7"},
		"a mark at the beginning":     {"\ufeffdata: a\n\n\ufeffdata: b\n\n", []block{{"", []byte("a")}, {}}, "0"},
		"unknown fields and comments": {"foo: bar\n: comment\nfoo\ndata: a\n\n", []block{{"", []byte("a")}}, "0"},
		"an event that is cut off":    {"id: 7\ndata: a\n\nid: 8\ndata: b\n", []block{{"", []byte("a")}}, "7"},
		"a line that is cut off":      {"id: 7\ndata: a\n\nid: 8", []block{{"", []byte("a")}}, "7"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.text), iotest.OneByteReader(strings.NewReader(tt.text))} {
				got, reader, err := blocks(t, r)
				require.NoError(t, err)
				require.Equal(t, tt.want, got)
				require.Equal(t, tt.id, reader.lastID)
			}
		})
	}
}

func TestTheTimeToComeBackIsANumber(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2000": 2 * time.Second, "0": 0, "": 0, "+2": 0, "-2": 0, "2s": 0, "2.5": 0, "99999999999": 0,
	} {
		_, reader, err := blocks(t, strings.NewReader("retry: "+text+"\n\n"))
		require.NoError(t, err)
		require.Equal(t, want, reader.retry, text)
	}
}

func TestALineEndIsNotWaitedFor(t *testing.T) {
	out, in := io.Pipe()
	defer out.Close()
	go func() { _, _ = io.WriteString(in, "data: a\r\r") }() // and nothing more
	b, err := newEventReader(out, "").next()
	require.NoError(t, err)
	require.Equal(t, "a", string(b.data))
}

func TestAnEventThatIsTooLargeIsNotKept(t *testing.T) {
	for name, text := range map[string]string{
		"one line":      "data: " + strings.Repeat("x", maxEvent) + "\n\n",
		"several lines": strings.Repeat("data: "+strings.Repeat("x", maxEvent/2)+"\n", 2) + "\n",
	} {
		_, _, err := blocks(t, strings.NewReader(text))
		require.ErrorIs(t, err, errEventTooLarge, name)
	}
	whole := "data: " + strings.Repeat("x", maxEvent-len("data: ")) + "\n\n"
	list, _, err := blocks(t, strings.NewReader(whole+whole))
	require.NoError(t, err)
	require.Len(t, list, 2)
}

func FuzzEventReader(f *testing.F) {
	for _, text := range []string{
		": mep\nretry: 2000\nid: 39\n\n", "id: 40-0\nevent: app\ndata: {}\n\n:\n\n", ":\nid: 44\n\n", "data: a\r\rdata\r\n\r\n\n", "\ufeffid\x00\ndata:\n\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, reader, err := blocks(t, bytes.NewReader(text))
		require.NoError(t, err, "what is short is read to its end")
		require.True(t, sendableID(reader.lastID))
		require.GreaterOrEqual(t, reader.retry, time.Duration(0))

		again, pieces, err := blocks(t, iotest.OneByteReader(bytes.NewReader(text)))
		require.NoError(t, err)
		require.Equal(t, list, again, "how a stream is divided makes no difference")
		require.Equal(t, reader.lastID, pieces.lastID)

		// The result is the same for the stream in its canonical form.
		var plain bytes.Buffer
		for _, b := range list {
			if b.event != "" {
				plain.WriteString("event: " + b.event + "\n")
			}
			if b.data != nil {
				plain.WriteString("data: " + strings.ReplaceAll(string(b.data), "\n", "\ndata: ") + "\n")
			}
			plain.WriteString("\n")
		}
		same, _, err := blocks(t, &plain)
		require.NoError(t, err)
		require.Equal(t, list, same)
	})
}
