package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// benchDNSRule measures the time from the response to a rule change over Mp1 until a DNS answer reflects it. The yardstick is
// the time that etcd takes to notify watchers of a change.
func benchDNSRule(o *options) error {
	p, _, apps, err := startConfigured(o, "--dns-zones", "mec.example")
	if err != nil {
		return err
	}
	defer p.Kill()
	s := &switcher{conns: newWires(), mp1: hostOf(p.URL("mp1")), apps: apps}
	defer s.conns.close()
	for app := range apps {
		if err := s.ready(app); err != nil {
			return err
		}
	}
	if s.resolver, err = newResolver(strings.TrimPrefix(p.URL("dns"), "dns://")); err != nil {
		return err
	}
	defer s.resolver.close()
	if err := s.measure(o, "PUT of a DNS rule answered to question answered by it"); err != nil {
		return err
	}
	stop := s.stir()
	err = s.measure(o, fmt.Sprintf("the same while %d others change their rules all the time", managers-1))
	if changes, fault := stop(); err == nil && fault == nil {
		report("  (they changed %d)", changes)
	} else if err == nil {
		err = fault
	}
	if err != nil {
		return err
	}
	return watchLag(o)
}

// switcher switches rules of apps over Mp1. The first app is the measured one.
type switcher struct {
	conns    *wires
	mp1      string
	apps     []string
	resolver *resolver
}

func (s *switcher) of(app int) string { return "/mec_app_support/v2/applications/" + s.apps[app] }

// ready confirms that an app is running, so that its rules come into force.
func (s *switcher) ready(app int) error {
	return s.conns.ask(app, s.mp1, http.MethodPost, s.of(app)+"/confirm_ready", []byte(`{"indication":"READY"}`), http.StatusNoContent)
}

// turn switches the nth rule of an app on or off.
func (s *switcher) turn(app, n int, on bool) error {
	state := "INACTIVE"
	if on {
		state = "ACTIVE"
	}
	body := fmt.Appendf(nil, `{"state":%q,"ttl":60}`, state)
	return s.conns.ask(app, s.mp1, http.MethodPut, fmt.Sprintf("%s/dns_rules/dns-%d", s.of(app), n), body, http.StatusOK)
}

// switches is the number of times that a rule is switched in a round.
const switches = 400

// measure switches the rules of the first app one after another, off and on again, and queries until the answer reflects the
// change.
func (s *switcher) measure(o *options, what string) error {
	var l latencies
	for range o.rounds {
		var took []time.Duration
		start := time.Now()
		for n := range switches {
			rule, on := n/2%rulesOfAKind, n%2 == 1
			if err := s.turn(0, rule, on); err != nil {
				return err
			}
			answered := time.Now()
			if err := s.await(rule, on); err != nil {
				return err
			}
			took = append(took, time.Since(answered))
		}
		l.add(took, switches/time.Since(start).Seconds())
	}
	report("%s: p50 %.2f ms, p99 %.2f ms (target 20)", what, median(l.p50), median(l.p99))
	return nil
}

// await queries the name of a rule of the first app until the answer is correct.
func (s *switcher) await(rule int, on bool) error {
	name, address := fmt.Sprintf("name-%d.app-0.mec.example.", rule), netip.AddrFrom4([4]byte{192, 0, 2, byte(rule)})
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		got, err := s.resolver.lookup(name, answerTimeout)
		if err != nil {
			return err
		}
		if on && got.address == address || !on && got.rcode == dns.RcodeNameError {
			return nil
		}
	}
	return fmt.Errorf("%s was not answered by the rule", name)
}

// stir changes rules of the other apps until stopped.
func (s *switcher) stir() (stop func() (changes int64, err error)) {
	var count atomic.Int64
	var stopped atomic.Bool
	var all sync.WaitGroup
	var fault atomic.Pointer[error]
	for app := 1; app < len(s.apps); app++ {
		all.Go(func() {
			for n := 0; !stopped.Load(); n++ {
				if err := s.turn(app, n/2%rulesOfAKind, n%2 == 1); err != nil {
					fault.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	return func() (int64, error) {
		stopped.Store(true)
		all.Wait()
		if err := fault.Load(); err != nil {
			return 0, *err
		}
		return count.Load(), nil
	}
}

// watchLag measures the time from the response to a put until a watch of a bare etcd reports it.
func watchLag(o *options) error {
	e, err := startEtcd(o, 2)
	if err != nil {
		return err
	}
	defer e.stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const key = "/bench/rule"
	heard := e.of(1).Watch(clientv3.WithRequireLeader(ctx), key)
	var l latencies
	for range o.rounds {
		var took []time.Duration
		start := time.Now()
		for range switches {
			if _, err := e.of(0).Put(ctx, key, "value"); err != nil {
				return err
			}
			answered := time.Now()
			if w, ok := <-heard; !ok || w.Err() != nil {
				return fmt.Errorf("watch: %w", w.Err())
			}
			took = append(took, time.Since(answered))
		}
		l.add(took, switches/time.Since(start).Seconds())
	}
	report("yardstick, a put into a bare etcd answered to told by its watch: p50 %.2f ms, p99 %.2f ms", median(l.p50), median(l.p99))
	return nil
}
