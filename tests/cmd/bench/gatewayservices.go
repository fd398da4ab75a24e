package main

import (
	"fmt"
	"time"

	"github.com/openmep/mep/api/gateway"
)

// benchGatewayServices compares calls spread over many services with calls of few.
func benchGatewayServices(o *options) error {
	var servers []*httpServer
	for _, count := range []int{10_000, 10} {
		g, err := startGate(o, "yardstick-service")
		if err != nil {
			return err
		}
		defer g.close()
		names := make([]string, count)
		for i := range names {
			names[i] = fmt.Sprintf("svc-%d", i)
		}
		start := time.Now()
		if err := g.publish(names...); err != nil {
			return err
		}
		report("%d services registered and reached in %.1f s", count, time.Since(start).Seconds())
		servers = append(servers, g.server(fmt.Sprintf("%d services", count), names...))
	}
	if err := alternateHTTP(o, servers...); err != nil {
		return err
	}
	compareFigures("calls among 10,000 services, all in turn, yardstick: among 10", "call", &servers[0].figures, &servers[1].figures, 0.9)
	return nil
}

// benchGatewayQuota compares calls that count against a quota with calls that do not.
func benchGatewayQuota(o *options) error {
	g, err := startGate(o, "yardstick-service")
	if err != nil {
		return err
	}
	defer g.close()
	err = g.policy("counted", &gateway.Policy{
		Authentication: []gateway.Method{gateway.ByToken}, Quotas: []gateway.Quota{{Calls: 1e9, Per: gateway.PerHour}},
	})
	if err != nil {
		return err
	}
	if err := g.publish("counted", "free"); err != nil {
		return err
	}
	counted, free := g.server("with a quota", "counted"), g.server("without", "free")
	if err := alternateHTTP(o, counted, free); err != nil {
		return err
	}
	compareFigures("calls with a quota for the hour, yardstick: without", "call", &counted.figures, &free.figures, 0)
	return nil
}
