package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// await requests a service until the response has a status.
func (g *gate) await(conns *wires, service string, want int) error {
	addr := hostOf(g.URL("gateway"))
	c, err := conns.of(0, addr)
	if err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Second); ; {
		status, _, err := c.do(http.MethodGet, "/services/"+service+"/", g.authorization(), nil)
		if err != nil || status == want {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("the service %s is answered %d, want %d", service, status, want)
		}
	}
}

// changesInARound is the number of services that are added and removed.
const changesInARound = 200

// benchGatewayChange measures the time from the response to a registration over Mp1 until the service is reachable through the
// gateway, and from the response to its removal until it is not.
func benchGatewayChange(o *options) error {
	g, err := startGate(o, "yardstick-service")
	if err != nil {
		return err
	}
	defer g.close()
	conns := newWires()
	defer conns.close()
	services := servicesURL(g.Process, uuid.NewString())
	var coming, going latencies
	for round := range o.rounds {
		var came, went []time.Duration
		start := time.Now()
		for n := range changesInARound {
			name := fmt.Sprintf("new-%d-%d", round, n)
			answer, err := post(services, g.offer(name))
			if err != nil {
				return err
			}
			begin := time.Now()
			if err := g.await(conns, name, http.StatusOK); err != nil {
				return err
			}
			came = append(came, time.Since(begin))
			if err := remove(services, answer); err != nil {
				return err
			}
			begin = time.Now()
			if err := g.await(conns, name, http.StatusNotFound); err != nil {
				return err
			}
			went = append(went, time.Since(begin))
		}
		rate := changesInARound / time.Since(start).Seconds()
		coming.add(came, rate)
		going.add(went, rate)
	}
	report("registration answered to service reached: p50 %.2f ms, p99 %.2f ms (target 20)", median(coming.p50), median(coming.p99))
	report("removal answered to service gone: p50 %.2f ms, p99 %.2f ms (target 20)", median(going.p50), median(going.p99))
	return nil
}

// remove removes the service described in the response to a registration.
func remove(services string, answer []byte) error {
	var s struct{ SerInstanceID string }
	if err := json.Unmarshal(answer, &s); err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodDelete, services+"/"+s.SerInstanceID, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNoContent {
		err = fmt.Errorf("DELETE of a service: %s", resp.Status)
	}
	return errors.Join(err, resp.Body.Close())
}
