package striped_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/striped"
)

// TestOneKeyIsHeldOnce counts without any other protection: the race detector and the sum show whether the lock holds.
func TestOneKeyIsHeldOnce(t *testing.T) {
	var l striped.Locks
	counts := make([]int, 4)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 1000 {
				k := (i + n) % len(counts)
				unlock, err := l.Lock(t.Context(), strconv.Itoa(k))
				require.NoError(t, err)
				counts[k]++
				unlock()
			}
		})
	}
	all.Wait()
	require.Equal(t, []int{2000, 2000, 2000, 2000}, counts)
}

func TestALockIsNotWaitedForForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l striped.Locks
		unlock, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		_, err = l.Lock(t.Context(), "a")
		require.ErrorIs(t, err, errs.Unavailable)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = l.Lock(gone, "a")
		require.ErrorIs(t, err, errs.Unavailable)
		require.ErrorIs(t, err, context.Canceled)
		unlock()
		unlock, err = l.Lock(t.Context(), "a")
		require.NoError(t, err)
		unlock()
	})
}
