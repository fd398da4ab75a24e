package events

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mm5"
)

// FuzzEventIsOneFrame checks that nothing in the data can end a line, and so start another field or another event.
func FuzzEventIsOneFrame(f *testing.F) {
	for _, s := range []string{"", "plain", "a\nb", "a\r\nid: 9\r\n\r\ndata: x", "\n\n", "\u2028\u2029", "\x00", "\xff", `"\`, "</script>", "a\u0085b", "\ufeff", "é"} {
		f.Add(s, s, int64(1), 0)
	}
	f.Fuzz(func(t *testing.T, name, detail string, revision int64, index int) {
		at := position{max(1, revision), min(max(0, index), whole)}
		var b batch
		require.NoError(t, b.add(at, &event{name: mm5.EventApp, data: mm5.AppEvent{AppInstanceID: "a", AppName: name, Change: mm5.Changed}}))
		require.NoError(t, b.add(at, &event{name: mm5.EventOperation, data: mm5.OperationEvent{OperationID: name, LcmOperation: mm5.OperationType(detail), Detail: detail}}))
		require.Equal(t, map[mm5.EventType]int{mm5.EventApp: 1, mm5.EventOperation: 1}, b.sent)
		text := string(b.frames)
		require.False(t, strings.ContainsAny(text, "\r\x00\v\f\x1c\x1d\x1e\u0085\u2028\u2029"))
		frames := strings.Split(text, "\n\n")
		require.Len(t, frames, 3)
		require.Empty(t, frames[2])
		for i, want := range []mm5.EventType{mm5.EventApp, mm5.EventOperation} {
			lines := strings.Split(frames[i], "\n")
			require.Len(t, lines, 3)
			require.Equal(t, "id: "+at.String(), lines[0])
			require.Equal(t, "event: "+string(want), lines[1])
			data, ok := strings.CutPrefix(lines[2], "data: ")
			require.True(t, ok)
			if !utf8.ValidString(name) || !utf8.ValidString(detail) {
				require.True(t, json.Valid([]byte(data)))
				continue
			}
			if want == mm5.EventApp {
				var got mm5.AppEvent
				require.NoError(t, json.Unmarshal([]byte(data), &got))
				require.Equal(t, name, got.AppName)
			} else {
				var got mm5.OperationEvent
				require.NoError(t, json.Unmarshal([]byte(data), &got))
				require.Equal(t, detail, got.Detail)
			}
		}
	})
}
