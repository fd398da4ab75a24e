package call

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzFrames splits what a server sends in two ways, which must not make a difference.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x81\x02hi\x88\x02\x03\xe8\x81"), byte(1))
	f.Add([]byte("\x82\x7e\x00\x03abc\x01\x00"), byte(3))
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x02ab"), byte(2))
	f.Add([]byte("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xffab"), byte(7))
	f.Fuzz(func(t *testing.T, data []byte, size byte) {
		var whole, pieces frames
		whole.pass(data)
		for n := max(int(size), 1); len(data) > 0; {
			n = min(n, len(data))
			pieces.pass(data[:n])
			data = data[n:]
		}
		require.Equal(t, whole, pieces)
		require.False(t, whole.between() && whole.over)
	})
}
