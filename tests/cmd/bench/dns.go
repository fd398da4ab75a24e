package main

import (
	"errors"
	"fmt"
)

// benchDNS compares responses from 10,000 A records over UDP with those of other servers.
func benchDNS(o *options) error {
	z := &benchZone
	p, err := newPerf(o, z)
	if err != nil {
		return err
	}
	ours, stop, err := startFilledAgent(o, z)
	if err != nil {
		return err
	}
	defer stop()
	loads := []load{{ours, p}}
	targets := map[*dnsServer]float64{}
	for _, y := range []struct {
		start  func(*options, *zone) (*dnsServer, error)
		target float64
	}{{startBare, 1}, {startCoreDNS, 1.15}, {startNSD, 0}} {
		s, err := y.start(o, z)
		if errors.Is(err, errMissing) {
			report("skipped: %v", err)
			continue
		}
		if err != nil {
			return err
		}
		defer s.stop()
		loads, targets[s] = append(loads, load{s, p}), y.target
	}
	report("load: %s, on the same processors as the server", p)
	if err := alternateDNS(o, loads...); err != nil {
		return err
	}
	for _, l := range loads[1:] {
		s := l.server
		compareFigures("answers from 10,000 A records over UDP, yardstick: "+s.name, "answer", &ours.figures, &s.figures, targets[s])
	}
	return nil
}

// load is a server with the queries to send to it.
type load struct {
	server *dnsServer
	*perf
}

// alternateDNS verifies the answers of all servers, and then queries the servers in turn.
func alternateDNS(o *options, loads ...load) error {
	for _, l := range loads {
		if err := verify(l.server.addr, l.questions); err != nil {
			return fmt.Errorf("%s: %w", l.server.name, err)
		}
	}
	for range o.rounds {
		for _, l := range loads {
			err := l.server.takeOf(func() (int, float64, error) {
				t, rate, err := l.run(l.server.addr, o.round)
				l.server.add(&t)
				return t.answered, rate, err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", l.server.name, err)
			}
		}
	}
	for _, l := range loads {
		l.server.reportLosses()
	}
	return nil
}
