package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/leader"
)

// ordered is an other side that records the order in which it heard of the generations of an app instance.
type ordered struct {
	*side
	mu    sync.Mutex
	heard []int64
}

func (o *ordered) Apply(ctx context.Context, set Set) (Report, error) {
	if set.AppInstanceID == "a" {
		o.mu.Lock()
		o.heard = append(o.heard, set.Generation)
		o.mu.Unlock()
	}
	return o.side.Apply(ctx, set)
}

func (o *ordered) generations() []int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.heard)
}

// A controller may ignore all but the highest generation it has heard of.
func TestThatAnAppIsGoneComesBetweenItsLives(t *testing.T) {
	p, other := newPlatform(t), &ordered{side: newSide()}
	p.declare(t, "a", 5, "r")
	lead(t, p.reconciler(quick(), other), leader.Term{})
	p.awaitReport(t, "a", 5)
	other.set(func() { other.poison["a"] = errors.New("not now") })
	for i := range 20 { // so that the revision of the store is far ahead
		p.declare(t, "b", int64(i+1), "r")
	}
	p.remove(t, "a")
	await(t, "it was tried several times", func() bool { return other.toldSoFar("a") >= 4 })
	p.declare(t, "a", 7, "r2")
	other.set(func() { clear(other.poison) })
	await(t, "the next life is in force", func() bool { return fmt.Sprint(other.holds("a")) == "[r2]" })
	heard := other.generations()
	require.True(t, slices.IsSorted(heard), "%v", heard)
	require.Equal(t, []int64{5, 6, 7}, slices.Compact(heard))
}
