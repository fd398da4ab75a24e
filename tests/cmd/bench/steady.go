package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openmep/mep/tests/process"
)

func heartbeat(p *process.Process, s registered) error {
	req, err := http.NewRequest(http.MethodPatch, servicesURL(p, s.app)+"/"+s.id+"/liveness", bytes.NewReader([]byte(`{"state":"ACTIVE"}`)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("heartbeat: status %d", resp.StatusCode)
	}
	return nil
}

// benchHeartbeat keeps 10,000 services alive with heartbeats every 10 s, evenly spread, and measures the cost for the platform.
// Then one service falls silent.
func benchHeartbeat(o *options) error {
	const services, interval = 10_000, 10
	p, all, err := startLoaded(o, services, interval)
	if err != nil {
		return err
	}
	defer p.Kill()
	const workers = 20
	silent := all[0]
	var muted atomic.Bool
	var lastBeat atomic.Int64
	var fault atomic.Pointer[error]
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			mine := all[w*services/workers : (w+1)*services/workers]
			tick := time.NewTicker(interval * time.Second / time.Duration(len(mine)))
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				s := mine[i%len(mine)]
				if s == silent && muted.Load() {
					continue
				}
				if err := heartbeat(p, s); err != nil {
					fault.Store(&err)
					return
				}
				if s == silent {
					lastBeat.Store(time.Now().UnixNano())
				}
			}
		})
	}
	defer func() { close(stop); wg.Wait() }()
	// The first round of heartbeats may find services that fell silent between their registration and now.
	time.Sleep((interval + 3) * time.Second)
	cpu0, err := p.CPU()
	if err != nil {
		return err
	}
	rev0, err := p.Metric("mep_watched_revision")
	if err != nil {
		return err
	}
	const window = 20 * time.Second
	time.Sleep(window)
	cpu1, err := p.CPU()
	if err != nil {
		return err
	}
	rev1, err := p.Metric("mep_watched_revision")
	if err != nil {
		return err
	}
	report("10,000 services with a 10 s heartbeat: %.1f %% of one core (target 15), %.1f etcd writes/s (target 5)",
		100*(cpu1-cpu0).Seconds()/window.Seconds(), (rev1-rev0)/window.Seconds())
	muted.Store(true)
	for deadline := time.Now().Add(40 * time.Second); ; {
		resp, err := client.Get(p.URL("mp1") + apiRoot + "/services/" + silent.id)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return err
		}
		if strings.Contains(string(body), `"state":"SUSPENDED"`) {
			after := time.Since(time.Unix(0, lastBeat.Load())) - interval*time.Second
			report("a silent service is SUSPENDED %.2f s after its interval (grace 1 s, target 2 s)", after.Seconds())
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the silent service was not suspended: %s", body)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := fault.Load(); err != nil {
		return *err
	}
	return nil
}

// benchStart measures start time and memory with 10,000 services.
func benchStart(o *options) error {
	p, dir, err := startPlatform(o)
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	idle, err := p.ResidentBytes()
	if err != nil {
		return err
	}
	if _, err := preload(p, 10_000, 0); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	loaded, err := p.ResidentBytes()
	if err != nil {
		return err
	}
	report("resident memory: idle %d MB (target 60), with 10,000 services %d MB (target 150)", idle>>20, loaded>>20)
	var starts []float64
	var rss int64
	for i := range o.rounds {
		if i%2 == 0 {
			p.Kill()
		} else if err := p.Stop(); err != nil {
			return err
		}
		begin := time.Now()
		if p, err = process.Start(o.mep, o.dir, "--data-dir", dir); err != nil {
			return err
		}
		starts = append(starts, time.Since(begin).Seconds()*1e3)
		time.Sleep(2 * time.Second)
		if rss, err = p.ResidentBytes(); err != nil {
			return err
		}
	}
	p.Kill()
	report("start to ready with 10,000 services: median %.0f ms (target 1000), resident after it %d MB", median(starts), rss>>20)
	return nil
}
