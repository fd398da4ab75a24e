package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
)

// churnZone has the same number of records as benchZone, in more app instances.
var churnZone = zone{"bench.example.", 1000, 10}

// The number of rule changes per second, and the number of changes made at once, each in a different app instance.
const (
	changesPerSecond = 1000
	changesAtOnce    = 20
)

// churner changes the addresses of rules in etcd.
type churner struct {
	etcd    *etcd
	zone    *zone
	changed []int  // by app instance: the rule with the changed address
	octet   []byte // and its first octet
	count   int
	stop    chan struct{}
	ended   chan error
}

func newChurner(e *etcd, z *zone) *churner {
	return &churner{etcd: e, zone: z, changed: make([]int, z.apps), octet: make([]byte, z.apps)}
}

// start starts changing rules.
func (c *churner) start() {
	c.stop, c.ended = make(chan struct{}), make(chan error, 1)
	go func() { c.ended <- c.run() }()
}

// finish stops changing rules.
func (c *churner) finish() error {
	close(c.stop)
	return <-c.ended
}

func (c *churner) run() error {
	tick := time.NewTicker(time.Second * changesAtOnce / changesPerSecond)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return nil
		case <-tick.C:
		}
		if err := c.change(); err != nil {
			return err
		}
	}
}

// change changes a rule of some app instances, a different one each time, and restores the one changed before.
func (c *churner) change() error {
	var ops []clientv3.Op
	for range changesAtOnce {
		app := c.count % c.zone.apps
		round := c.count / c.zone.apps
		c.changed[app], c.octet[app] = round%c.zone.perApp, byte(firstOctet+1+round%100)
		text, err := c.zone.rules(app, c.changed[app], c.octet[app])
		if err != nil {
			return err
		}
		ops = append(ops, clientv3.OpPut(state.DNSRulesKey(c.zone.app(app)), text))
		c.count++
	}
	_, err := c.etcd.clients[0].Txn(context.Background()).Then(ops...).Commit()
	return err
}

// check verifies that, after a short while at most, the answers to all queries reflect the latest changes.
func (c *churner) check(addr string) error {
	const patience = 2 * time.Second
	r, err := newResolver(addr)
	if err != nil {
		return err
	}
	defer r.close()
	end := time.Now().Add(patience)
	for i := range c.zone.names() {
		want := c.zone.address(i).As4()
		if app := i / c.zone.perApp; c.octet[app] != 0 && c.changed[app] == i%c.zone.perApp {
			want[0] = c.octet[app]
		}
		for {
			got, err := r.lookup(c.zone.name(i), answerTimeout)
			if err != nil {
				return err
			}
			if got.address.Is4() && got.address.As4() == want {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s is %v after the last change, want %v", c.zone.name(i), got.address, want)
			}
		}
	}
	return nil
}

// benchDNSChurn compares answers while rules change with answers while none does, and checks that none is missing or wrong.
func benchDNSChurn(o *options) error {
	z := &churnZone
	questions, err := z.questions()
	if err != nil {
		return err
	}
	e, err := startEtcd(o, managers)
	if err != nil {
		return err
	}
	defer e.stop()
	if err := e.store(z); err != nil {
		return err
	}
	server, err := startAgent(o, e, z)
	if err != nil {
		return err
	}
	defer server.stop()
	c := newChurner(e, z)
	calm, busy := churned{server: server, questions: questions}, churned{server: server, questions: questions}
	calm.pid, busy.pid = server.pid, server.pid
	for range o.rounds {
		if err := calm.flood(o); err != nil {
			return err
		}
		if err := c.during(&busy, func() error { return busy.flood(o) }); err != nil {
			return err
		}
	}
	quarter := median(calm.rates) / 4
	for range o.rounds {
		if err := calm.pace(o, quarter); err != nil {
			return err
		}
		if err := c.during(&busy, func() error { return busy.pace(o, quarter) }); err != nil {
			return err
		}
	}
	compareFigures(fmt.Sprintf("answers while %.0f rules/s change, yardstick: while none does", median(busy.changes)), "answer",
		&busy.figures, &calm.figures, 0)
	report("an answer at a quarter of that load while rules change: %s; while none does: %s", busy.latencies.micros(), calm.latencies.micros())
	report("questions that were not answered while rules change: %d of %d (target 0); while none does: %d of %d", busy.lost,
		busy.answered+busy.lost, calm.lost, calm.answered+calm.lost)
	report("answers that were wrong: %d (target 0); %d were with an address that changed", busy.wrong+calm.wrong, busy.changed)
	server.add(&busy.tally)
	server.add(&calm.tally)
	server.reportLosses()
	if err := c.check(server.addr); err != nil {
		return err
	}
	report("after that, all %d names are answered as they were changed last", z.names())
	return nil
}

// churned holds the results of rounds of one kind.
type churned struct {
	server    *dnsServer
	questions []question
	figures
	tally
	latencies latencies // of paced queries
	changes   []float64 // per second
}

func (r *churned) flood(o *options) error {
	return r.takeOf(func() (int, float64, error) {
		t, rate, err := flood(r.server.addr, r.questions, o.round)
		r.add(&t)
		return t.answered, rate, err
	})
}

func (r *churned) pace(o *options, perSecond float64) error {
	t, err := pace(r.server.addr, r.questions, perSecond, o.round)
	r.latencies.add(t.took, float64(t.answered)/o.round.Seconds())
	t.took = nil
	r.add(&t)
	return err
}

// during changes rules while do runs, and records the number of changes per second.
func (c *churner) during(r *churned, do func() error) error {
	before, begin := c.count, time.Now()
	c.start()
	err := errors.Join(do(), c.finish())
	r.changes = append(r.changes, float64(c.count-before)/time.Since(begin).Seconds())
	return err
}
