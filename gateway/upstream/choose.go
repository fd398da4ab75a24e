package upstream

import "math/rand/v2"

// choose returns the less loaded of two endpoints picked at random, preferably usable ones not yet tried, then usable ones. If none
// is usable it takes any, preferably one not yet tried: calling an endpoint that may be broken is better than calling none.
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

// chooseAmong chooses among the endpoints that fit. It returns nil if there are none.
func chooseAmong(eps []*Endpoint, fits func(*Endpoint) bool) *Endpoint {
	// Reservoir sampling: two endpoints with equal chances, without a list.
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
	if rand.Uint32()&1 == 0 { // better returns the first if both are equally loaded
		x, y = y, x
	}
	return better(x, y)
}

// better returns the less loaded of two endpoints.
func better(x, y *Endpoint) *Endpoint {
	if x.profile.slowStart > 0 || y.profile.slowStart > 0 {
		return betterSlowly(x, y)
	}
	if y.active.Load() < x.active.Load() {
		return y
	}
	return x
}

// betterSlowly compares endpoints in slow start. Without load the number of calls in flight says nothing, so the weight of an
// endpoint also determines how often it is considered at all.
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
