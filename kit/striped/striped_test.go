package striped_test

import (
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/striped"
)

// TestOneKeyIsHeldOnce counts without any other protection: the race detector and the sum tell whether the lock holds.
func TestOneKeyIsHeldOnce(t *testing.T) {
	var l striped.Locks
	counts := make([]int, 4)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 1000 {
				k := (i + n) % len(counts)
				unlock := l.Lock(strconv.Itoa(k))
				counts[k]++
				unlock()
			}
		})
	}
	all.Wait()
	require.Equal(t, []int{2000, 2000, 2000, 2000}, counts)
}
