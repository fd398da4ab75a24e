package main

// upstreamZone is a zone that another server is authoritative for.
var upstreamZone = zone{"upstream.example.", 100, 100}

// benchDNSCached compares cached forwarded answers with the platform's own answers.
func benchDNSCached(o *options) error {
	upstream, err := startBare(o, &upstreamZone)
	if err != nil {
		return err
	}
	defer upstream.stop()
	own, stop, err := startFilledAgent(o, &benchZone, "--dns-forward", upstream.addr)
	if err != nil {
		return err
	}
	defer stop()
	cached := &dnsServer{figures: figures{pid: own.pid}, name: "cached answers", addr: own.addr}
	fromTable, err := newPerf(o, &benchZone)
	if err != nil {
		return err
	}
	fromCache, err := newPerf(o, &upstreamZone)
	if err != nil {
		return err
	}
	begin, err := cpuOf(upstream.pid)
	if err != nil {
		return err
	}
	// The first load fills the cache.
	if err := alternateDNS(o, load{cached, fromCache}, load{own, fromTable}); err != nil {
		return err
	}
	end, err := cpuOf(upstream.pid)
	if err != nil {
		return err
	}
	compareFigures("forwarded answers from the cache, 10,000 names, yardstick: from the table", "answer", &cached.figures, &own.figures, 0.8)
	report("  processor time of the upstream in all that time: %.2f s", (end - begin).Seconds())
	return nil
}
