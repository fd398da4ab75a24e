package main

import "fmt"

// benchDNSLatency compares response times at half the rate that the bare server can sustain.
func benchDNSLatency(o *options) error {
	z := &benchZone
	questions, err := z.questions()
	if err != nil {
		return err
	}
	ours, stop, err := startFilledAgent(o, z)
	if err != nil {
		return err
	}
	defer stop()
	bare, err := startBare(o, z)
	if err != nil {
		return err
	}
	defer bare.stop()
	var most []float64
	for range o.rounds {
		_, rate, err := flood(bare.addr, questions, o.round)
		if err != nil {
			return err
		}
		most = append(most, rate)
	}
	half := median(most) / 2
	report("the bare server bears %.0f questions/s of the bench's own generator; half of that is asked", median(most))
	var a, b latencies
	for range o.rounds {
		for s, l := range map[*dnsServer]*latencies{ours: &a, bare: &b} {
			t, err := pace(s.addr, questions, half, o.round)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.add(&t)
			l.add(t.took, float64(t.answered)/o.round.Seconds())
		}
	}
	report("an answer of ours: %s", a.micros())
	report("  of a bare miekg/dns server: %s; ratio of p50 %.2f, of p99 %.2f (target at most 1.20)", b.micros(),
		median(a.p50)/median(b.p50), median(a.p99)/median(b.p99))
	ours.reportLosses()
	bare.reportLosses()
	return nil
}
