package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/tests/process"
)

// The number of app instances, of Mm5 clients that configure them, and of rules of each kind.
const (
	managers     = 8
	instances    = 1000
	rulesOfAKind = 16
)

// configuration returns the request body that configures an app instance.
func configuration(app int) ([]byte, error) {
	r := mm5.ConfigPlatformForAppRequest{AppName: fmt.Sprintf("app-%d", app)}
	for i := range rulesOfAKind {
		priority, ttl := i, int64(60)
		r.AppTrafficRule = append(r.AppTrafficRule, mp1.TrafficRule{
			TrafficRuleID: fmt.Sprintf("traffic-%d", i), FilterType: mp1.FilterFlow, Priority: &priority, State: mp1.RuleActive,
			TrafficFilter: []mp1.TrafficFilter{{
				SrcAddress: []string{"10.60.0.0/16"}, DstAddress: []string{fmt.Sprintf("198.51.100.%d", i)},
				DstPort: []string{"443", "8000-8080"}, Protocol: []string{"TCP"},
			}},
			Action:       mp1.ActionForwardDecapsulated,
			DstInterface: []mp1.DestinationInterface{{InterfaceType: mp1.InterfaceIP, DstIPAddress: fmt.Sprintf("192.0.2.%d", i)}},
		})
		r.AppDNSRule = append(r.AppDNSRule, mp1.DNSRule{
			DNSRuleID: fmt.Sprintf("dns-%d", i), DomainName: fmt.Sprintf("name-%d.app-%d.mec.example", i, app),
			IPAddressType: mp1.IPv4, IPAddress: fmt.Sprintf("192.0.2.%d", i), TTL: &ttl, State: mp1.RuleActive,
		})
	}
	return json.Marshal(r)
}

// configurations returns the request bodies for a number of app instances, which have no ids yet.
func configurations(count int) ([][]byte, error) {
	all := make([][]byte, count)
	for i := range all {
		var err error
		if all[i], err = configuration(i); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// configure configures an app instance for each body and returns their ids and the rate.
func configure(p *process.Process, bodies [][]byte) (apps []string, rate float64, err error) {
	conns := newWires()
	defer conns.close()
	addr := hostOf(p.URL("mm5"))
	apps = make([]string, len(bodies))
	for i := range apps {
		apps[i] = uuid.NewString()
	}
	rate, err = share(managers, len(bodies), func(w, i int) error {
		target := "/mm5/v1/app_instances/" + apps[i] + "/configure_platform_for_app"
		return conns.ask(w, addr, http.MethodPost, target, bodies[i], http.StatusAccepted)
	})
	return apps, rate, err
}

// record is a record in the platform's database.
type record struct{ prefix, value string }

// written returns the records that the last transaction of a platform wrote.
func written(dataDir string) ([]record, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(dataDir, "sockets", "client")}, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	got, err := c.Get(ctx, state.Root, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
	if err != nil {
		return nil, err
	}
	var list []record
	for _, kv := range got.Kvs {
		if kv.ModRevision == got.Kvs[0].ModRevision {
			list = append(list, record{path.Dir(string(kv.Key)) + "/", string(kv.Value)})
		}
	}
	return list, nil
}

// sample returns the records that the configuration of one app instance writes.
func sample(o *options) ([]record, error) {
	p, dir, err := startPlatform(o)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	bodies, err := configurations(1)
	if err != nil {
		return nil, err
	}
	if _, _, err := configure(p, bodies); err != nil {
		return nil, err
	}
	records, err := written(dir)
	size := 0
	for _, r := range records {
		size += len(r.prefix) + len(r.value)
	}
	report("a configuration of %d bytes is one transaction of %d records with %d bytes", len(bodies[0]), len(records), size)
	return records, err
}

// write stores the records once for each app instance, in one transaction each, and returns the rate.
func (e *etcd) write(records []record) (rate float64, err error) {
	return share(managers, instances, func(w, _ int) error {
		id := uuid.NewString()
		ops := make([]clientv3.Op, len(records))
		for i, r := range records {
			ops[i] = clientv3.OpPut(r.prefix+id, r.value)
		}
		_, err := e.of(w).Txn(context.Background()).Then(ops...).Commit()
		return err
	})
}

// benchConfigure compares configurations with raw etcd transactions of the same records over gRPC on loopback. Both start empty
// in every round.
func benchConfigure(o *options) error {
	records, err := sample(o)
	if err != nil {
		return err
	}
	bodies, err := configurations(instances)
	if err != nil {
		return err
	}
	var ours, shared, own figures
	for range o.rounds {
		p, _, err := startPlatform(o)
		if err != nil {
			return err
		}
		ours.pid = p.Pid()
		err = ours.takeOf(func() (int, float64, error) {
			_, rate, err := configure(p, bodies)
			return instances, rate, err
		})
		p.Kill()
		if err != nil {
			return err
		}
		for conns, f := range map[int]*figures{1: &shared, managers: &own} {
			e, err := startEtcd(o, conns)
			if err != nil {
				return err
			}
			f.pid = e.pid
			err = f.takeOf(func() (int, float64, error) {
				rate, err := e.write(records)
				return instances, rate, err
			})
			e.stop()
			if err != nil {
				return err
			}
		}
	}
	compareFigures("configurations, 8 clients, etcd clients share a connection", "configuration", &ours, &shared, 0.5)
	compareFigures("configurations, 8 clients, a connection for each", "configuration", &ours, &own, 0.5)
	return nil
}

// startConfigured starts the platform with one configured app instance for each manager.
func startConfigured(o *options, args ...string) (p *process.Process, dir string, apps []string, err error) {
	bodies, err := configurations(managers)
	if err != nil {
		return nil, "", nil, err
	}
	if p, dir, err = startPlatform(o, args...); err != nil {
		return nil, "", nil, err
	}
	if apps, _, err = configure(p, bodies); err != nil {
		p.Kill()
		return nil, "", nil, err
	}
	return p, dir, apps, nil
}

// benchRule compares a rule change over Mp1 with a raw etcd put of the same record.
func benchRule(o *options) error {
	p, dir, apps, err := startConfigured(o)
	if err != nil {
		return err
	}
	defer p.Kill()
	conns := newWires()
	defer conns.close()
	addr := hostOf(p.URL("mp1"))
	of := func(app string) string { return "/mec_app_support/v2/applications/" + app }
	for _, app := range apps { // the rules come into force
		if err := conns.ask(0, addr, http.MethodPost, of(app)+"/confirm_ready", []byte(`{"indication":"READY"}`), http.StatusNoContent); err != nil {
			return err
		}
	}
	change := func(w, n int) error {
		// The varying TTL makes every request a change.
		body := fmt.Appendf(nil, `{"state":"ACTIVE","ttl":%d}`, n+1)
		return conns.ask(w, addr, http.MethodPut, of(apps[w])+fmt.Sprintf("/dns_rules/dns-%d", n%rulesOfAKind), body, http.StatusOK)
	}
	if err := change(0, 0); err != nil {
		return err
	}
	records, err := written(dir)
	if err != nil {
		return err
	}
	e, err := startEtcd(o, managers)
	if err != nil {
		return err
	}
	defer e.stop()
	put := func(w, _ int) error {
		_, err := e.of(w).Put(context.Background(), records[0].prefix+apps[w], records[0].value)
		return err
	}
	for _, workers := range []int{1, managers} {
		var ours, theirs latencies
		for range o.rounds {
			if err := ours.take(workers, o.round, change); err != nil {
				return err
			}
			if err := theirs.take(workers, o.round, put); err != nil {
				return err
			}
		}
		report("PUT of a DNS rule among %d, clients at a time: %d: %s", rulesOfAKind, workers, &ours)
		report("  raw put of the same record (%d bytes): %s; ratio of p99 %.1f (target at most 10)", len(records[0].value), &theirs,
			median(ours.p99)/median(theirs.p99))
	}
	return nil
}

// latencies holds the durations of each round, in milliseconds, and the rates per second.
type latencies struct{ p50, p99, rates []float64 }

func (l *latencies) take(workers int, d time.Duration, work func(worker, n int) error) error {
	took, rate, err := timed(workers, d, work)
	l.add(took, rate)
	return err
}

// add adds a round: the duration of each repetition and the rate per second.
func (l *latencies) add(took []time.Duration, rate float64) {
	l.p50 = append(l.p50, percentile(took, .5).Seconds()*1e3)
	l.p99 = append(l.p99, percentile(took, .99).Seconds()*1e3)
	l.rates = append(l.rates, rate)
}

func (l *latencies) String() string {
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, %.0f/s", median(l.p50), median(l.p99), median(l.rates))
}

// micros formats latencies in microseconds.
func (l *latencies) micros() string {
	return fmt.Sprintf("p50 %.0f µs, p99 %.0f µs, %.0f/s", median(l.p50)*1e3, median(l.p99)*1e3, median(l.rates))
}

// memory is the memory use of a process, in bytes.
type memory struct{ resident, heap float64 }

// benchMemory measures the memory use of rules, here and in an etcd with the same records.
func benchMemory(o *options) error {
	records, err := sample(o)
	if err != nil {
		return err
	}
	bodies, err := configurations(instances)
	if err != nil {
		return err
	}
	p, _, err := startPlatform(o)
	if err != nil {
		return err
	}
	defer p.Kill()
	before, err := memoryOf(p.Pid(), p.URL("ops"))
	if err != nil {
		return err
	}
	if _, _, err := configure(p, bodies); err != nil {
		return err
	}
	after, err := memoryOf(p.Pid(), p.URL("ops"))
	if err != nil {
		return err
	}
	e, err := startEtcd(o, managers)
	if err != nil {
		return err
	}
	defer e.stop()
	time.Sleep(settle)
	empty, err := process.ResidentBytes(e.pid)
	if err != nil {
		return err
	}
	if _, err := e.write(records); err != nil {
		return err
	}
	time.Sleep(settle)
	full, err := process.ResidentBytes(e.pid)
	if err != nil {
		return err
	}
	const rules = 2 * rulesOfAKind * instances
	report("%d rules of %d app instances: resident memory %.0f MB before, %.0f MB after: %.0f bytes a rule", rules, instances,
		before.resident/(1<<20), after.resident/(1<<20), (after.resident-before.resident)/rules)
	report("  heap in use after a collection: %.1f MB before, %.1f MB after: %.0f bytes a rule", before.heap/(1<<20), after.heap/(1<<20),
		(after.heap-before.heap)/rules)
	report("  resident memory of a bare etcd with the same records: %d MB before, %d MB after: %d bytes a rule", empty>>20, full>>20,
		(full-empty)/rules)
	return nil
}

// settle is the idle time of a process before its memory is measured.
const settle = 5 * time.Second

// memoryOf measures the memory of a process after an idle time, that of the heap after a garbage collection.
func memoryOf(pid int, ops string) (m memory, err error) {
	time.Sleep(settle)
	resident, err := process.ResidentBytes(pid)
	if err != nil {
		return m, err
	}
	m.resident = float64(resident)
	m.heap, err = heapOf(ops)
	return m, err
}

var heapAlloc = regexp.MustCompile(`# HeapAlloc = (\d+)`)

// heapOf returns the heap in use after a garbage collection, in bytes.
func heapOf(ops string) (float64, error) {
	resp, err := client.Get(ops + "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	profile, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	found := heapAlloc.FindSubmatch(profile)
	if found == nil {
		return 0, fmt.Errorf("profile of the heap: %s", resp.Status)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}
