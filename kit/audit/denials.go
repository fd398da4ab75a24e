package audit

import (
	"context"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// How many denials a second are written, and how many at once: a share that each listener has for itself, so that a flood at one hides
// nothing of what happens at another, and a rest for whoever comes first. One listener alone may have 50 a second and 200 at once, and
// those of a whole platform not many times that: at such a rate a flood of ordinary lines takes hours to push what others did out of
// files of the default size.
const (
	ownRate     = 10
	ownBurst    = 50
	commonRate  = 40
	commonBurst = 150

	suppressedDelay = time.Second
)

// denials decides which denials are written. Whoever uses it holds Log.mu.
type denials struct {
	common *rate.Limiter
	of     map[string]*denied // by listener
}

// denied is what is known of the denials of one listener.
type denied struct {
	own        *rate.Limiter
	suppressed int // since it was last said
}

func newDenials() denials {
	return denials{common: rate.NewLimiter(commonRate, commonBurst), of: make(map[string]*denied)}
}

// allow reports whether a denial of a listener is written. One that is not counts as suppressed.
func (d *denials) allow(listener string, now time.Time) bool {
	l := d.of[listener]
	if l == nil {
		l = &denied{own: rate.NewLimiter(ownRate, ownBurst)}
		d.of[listener] = l
	}
	// The share is for when others have used up the rest.
	if d.common.AllowN(now, 1) || l.own.AllowN(now, 1) {
		return true
	}
	l.suppressed++
	return false
}

// appendSums appends a line for each listener of which denials were suppressed since it was last said.
func (d *denials) appendSums(b []byte, now time.Time) []byte {
	for _, name := range slices.Sorted(maps.Keys(d.of)) {
		if l := d.of[name]; l.suppressed > 0 {
			b = appendSuppressed(b, now, name, l.suppressed)
			l.suppressed = 0
		}
	}
	return b
}

type listenerKey struct{}

// At is the context of requests that come by a listener and may be handed to what has a listener of its own besides, in the same process:
// denials there are then denials at this listener.
func At(ctx context.Context, listener string) context.Context {
	return context.WithValue(ctx, listenerKey{}, listener)
}

// Listener is the listener that a request came by: that of At, or else own, that of whom it got to.
func Listener(ctx context.Context, own string) string {
	if listener, ok := ctx.Value(listenerKey{}).(string); ok {
		return listener
	}
	return own
}
