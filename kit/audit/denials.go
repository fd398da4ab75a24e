package audit

import (
	"context"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// How many denials are written a second, and how many at once. Each listener has a share of its own, so that a flood at one hides nothing
// of what happens at another; the rest is for whoever comes first. One listener alone may have 50 a second and 200 at once, and all
// listeners of a platform not many times that: at such a rate a flood of ordinary lines takes hours to push other entries out of files of
// the default size.
const (
	ownRate     = 10
	ownBurst    = 50
	commonRate  = 40
	commonBurst = 150

	suppressedDelay = time.Second
)

// denials decides which denials are written. Its caller holds Log.mu.
type denials struct {
	common *rate.Limiter
	of     map[string]*denied // by listener
}

// denied is the state of the denials at one listener.
type denied struct {
	own        *rate.Limiter
	suppressed int // since the last line that counted them
}

func newDenials() denials {
	return denials{common: rate.NewLimiter(commonRate, commonBurst), of: make(map[string]*denied)}
}

// allow reports whether a denial at a listener is written. If not, it counts as suppressed.
func (d *denials) allow(listener string, now time.Time) bool {
	l := d.of[listener]
	if l == nil {
		l = &denied{own: rate.NewLimiter(ownRate, ownBurst)}
		d.of[listener] = l
	}
	// The listener's own share is for when others have used up the rest.
	if d.common.AllowN(now, 1) || l.own.AllowN(now, 1) {
		return true
	}
	l.suppressed++
	return false
}

// appendSums appends a line for each listener at which denials were suppressed since its last such line.
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

// At returns a context for requests that arrive at a listener and may be handed on to a component with its own listener in the same
// process: denials there then count as denials at this listener.
func At(ctx context.Context, listener string) context.Context {
	return context.WithValue(ctx, listenerKey{}, listener)
}

// Listener returns the listener at which a request arrived: that given to At, or else own, that of its handler.
func Listener(ctx context.Context, own string) string {
	if listener, ok := ctx.Value(listenerKey{}).(string); ok {
		return listener
	}
	return own
}
