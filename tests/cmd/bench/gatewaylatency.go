package main

// benchGatewayLatency measures how much longer a call takes through the gateway than directly, at a third of the load that the
// gateway can sustain, next to a bare proxy.
func benchGatewayLatency(o *options) error {
	g, err := startGate(o, "yardstick-service")
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.publish("bench"); err != nil {
		return err
	}
	bare, err := startBareProxy(g.service, g.authorization())
	if err != nil {
		return err
	}
	defer bare.stop()
	ours := g.server("the gateway", "bench")
	direct := &httpServer{name: "the service", addr: g.service, size: answerSize, requests: bare.requests}
	for range o.rounds {
		if err := ours.takeOf(func() (int, float64, error) { return ours.flood(o.round) }); err != nil {
			return err
		}
	}
	third := median(ours.figures.rates) / 3
	report("the gateway bears %.0f calls/s; a third of that is asked, evenly spread", median(ours.figures.rates))
	for range o.rounds {
		for _, s := range []*httpServer{direct, ours, bare} {
			if err := s.pace(third, o.round); err != nil {
				return err
			}
		}
	}
	report("a call of the service itself: %s", direct.latencies.micros())
	for _, s := range []*httpServer{ours, bare} {
		report("through %s: %s; added: p50 %.0f µs, p99 %.0f µs%s", s.name, s.latencies.micros(), added(s.p50, direct.p50), added(s.p99, direct.p99),
			map[bool]string{true: " (targets 150 and 1000)"}[s == ours])
	}
	return nil
}

// added returns the difference of the medians, in microseconds.
func added(through, direct []float64) float64 { return (median(through) - median(direct)) * 1e3 }
