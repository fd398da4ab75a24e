package upstream

import "math/rand/v2"

// choose picks the less loaded of two endpoints chosen at random, among those that are usable and were not tried yet. When there
// are none it takes usable ones again, and when none is usable any: to call what may be broken is better than to call nobody.
func choose(eps []*Endpoint, a *Attempt) *Endpoint {
	n := len(eps)
	if n == 1 {
		return eps[0]
	}
	i := rand.IntN(n)
	j := rand.IntN(n - 1)
	if j >= i {
		j++
	}
	if x, y := eps[i], eps[j]; x.usable() && y.usable() && !a.tried(x) && !a.tried(y) {
		return better(x, y)
	}
	for _, fits := range []func(*Endpoint) bool{
		func(e *Endpoint) bool { return !a.tried(e) && e.usable() },
		(*Endpoint).usable,
		func(e *Endpoint) bool { return !a.tried(e) },
	} {
		if e := chooseAmong(eps, fits); e != nil {
			return e
		}
	}
	return better(eps[i], eps[j])
}

// chooseAmong picks among the endpoints that fit, nil when there are none.
func chooseAmong(eps []*Endpoint, fits func(*Endpoint) bool) *Endpoint {
	// Two of them with equal chances for all, without a list of them.
	var x, y *Endpoint
	seen := 0
	for _, e := range eps {
		if !fits(e) {
			continue
		}
		seen++
		switch seen {
		case 1:
			x = e
		case 2:
			y = e
		default:
			if k := rand.IntN(seen); k == 0 {
				x = e
			} else if k == 1 {
				y = e
			}
		}
	}
	if y == nil {
		return x
	}
	if rand.Uint32()&1 == 0 { // the first wins when both are as loaded
		x, y = y, x
	}
	return better(x, y)
}

// better is the less loaded of two endpoints.
func better(x, y *Endpoint) *Endpoint {
	if x.profile.slowStart > 0 || y.profile.slowStart > 0 {
		return betterSlowly(x, y)
	}
	if y.active.Load() < x.active.Load() {
		return y
	}
	return x
}

// betterSlowly weighs endpoints in slow start. Without load the number of calls under way tells nothing, so the share of an
// endpoint is also that of the cases in which it is considered at all.
func betterSlowly(x, y *Endpoint) *Endpoint {
	now := x.manager.now()
	wx, wy := x.weight(now), y.weight(now)
	if wx < wy {
		x, y, wx, wy = y, x, wy, wx
	}
	if wy < wx && rand.Float64() > wy/wx {
		return x
	}
	lx, ly := float64(x.active.Load())/wx, float64(y.active.Load())/wy
	if ly < lx || ly == lx && rand.Uint32()&1 == 0 {
		return y
	}
	return x
}
