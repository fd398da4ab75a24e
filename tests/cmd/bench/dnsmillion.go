package main

import "time"

// millionZone has a million records.
var millionZone = zone{"bench.example.", 1000, 1000}

// benchDNSMillion measures start time, responses and memory of a DNS server with 1,000,000 records, next to one with 10,000.
func benchDNSMillion(o *options) error {
	few, stop, err := startFilledAgent(o, &benchZone)
	if err != nil {
		return err
	}
	defer stop()
	e, err := startEtcd(o, managers)
	if err != nil {
		return err
	}
	defer e.stop()
	start := time.Now()
	if err := e.store(&millionZone); err != nil {
		return err
	}
	report("%d records written into etcd in %.1f s", millionZone.names(), time.Since(start).Seconds())
	many, err := startMany(o, e)
	if err != nil {
		return err
	}
	defer many.stop()
	a, err := newPerf(o, &millionZone)
	if err != nil {
		return err
	}
	b, err := newPerf(o, &benchZone)
	if err != nil {
		return err
	}
	if err := alternateDNS(o, load{many, a}, load{few, b}); err != nil {
		return err
	}
	compareFigures("answers from 1,000,000 records, yardstick: from 10,000", "answer", &many.figures, &few.figures, 0.85)
	return reportMemory(many, few)
}

// startMany measures the time until the last record is served, next to the time that etcd takes to list all of them. The last
// server keeps running.
func startMany(o *options, e *etcd) (s *dnsServer, err error) {
	var starts, lists []float64
	octets := 0
	for range max(1, o.rounds/2) {
		if s != nil {
			s.stop()
		}
		begin := time.Now()
		if octets, err = e.list(); err != nil {
			return nil, err
		}
		lists = append(lists, time.Since(begin).Seconds())
		begin = time.Now()
		if s, err = startAgent(o, e, &millionZone); err != nil {
			return nil, err
		}
		starts = append(starts, time.Since(begin).Seconds())
	}
	report("start to answers from all records: median %.2f s (target 5); etcd hands out the same %d MB in %.2f s", median(starts),
		octets>>20, median(lists))
	return s, nil
}

// reportMemory reports the memory per additional record of the larger server.
func reportMemory(many, few *dnsServer) error {
	m, err := memoryOf(many.pid, many.ops)
	if err != nil {
		return err
	}
	f, err := memoryOf(few.pid, few.ops)
	if err != nil {
		return err
	}
	more := float64(millionZone.names() - benchZone.names())
	const mb = 1 << 20
	report("resident memory: %.0f MB with 10,000 records, %.0f MB with 1,000,000: %.0f bytes a record", f.resident/mb, m.resident/mb,
		(m.resident-f.resident)/more)
	report("  heap after a collection: %.0f MB with 10,000, %.0f MB with 1,000,000: %.0f bytes a record", f.heap/mb, m.heap/mb,
		(m.heap-f.heap)/more)
	return nil
}
