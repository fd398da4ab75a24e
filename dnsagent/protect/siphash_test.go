package protect

import (
	"encoding/binary"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSipHash has the vectors of the reference implementation: the key is 00, 01, ... 0f, the message of length n is 00, 01, ... n-1.
func TestSipHash(t *testing.T) {
	var key [16]byte
	for i := range key {
		key[i] = byte(i)
	}
	vectors := []string{
		"310e0edd47db6f72", "fd67dc93c539f874", "5a4fa9d909806c0d", "2d7efbd796666785", "b7877127e09427cf", "8da699cd64557618",
		"cee3fe586e46c9cb", "37d1018bf50002ab", "6224939a79f5f593", "b0e4a90bdf82009e", "f3b9dd94c5bb5d7a", "a7ad6b22462fb3f4",
		"fbe50e86bc8f1e75", "903d84c02756ea14", "eef27a8e90ca23f7", "e545be4961ca29a1",
	}
	var msg []byte
	for n, want := range vectors {
		got := binary.LittleEndian.AppendUint64(nil, sipHash(&key, msg))
		require.Equal(t, want, hex.EncodeToString(got), "length %d", n)
		msg = append(msg, byte(n))
	}
	for len(msg) < 63 {
		msg = append(msg, byte(len(msg)))
	}
	require.Equal(t, uint64(0x958a324ceb064572), sipHash(&key, msg))
}
