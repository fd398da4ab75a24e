package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/tests/process"
)

// gate is a platform with the service behind its gateway and a token for callers.
type gate struct {
	*process.Process
	dir     string
	service string // address of the service
	token   string
	close   func()
}

// startGate starts a platform in development mode, which has no TLS, with a policy that requires tokens for every service, and
// the service behind the gateway.
func startGate(o *options, service string) (*gate, error) {
	addr, _, stop, err := startYardstick(service, "")
	if err != nil {
		return nil, err
	}
	p, dir, err := startPlatform(o)
	if err != nil {
		stop()
		return nil, err
	}
	g := &gate{Process: p, dir: dir, service: addr, close: func() { p.Kill(); stop() }}
	if err = g.policy(gateway.AnyService, &gateway.Policy{Authentication: []gateway.Method{gateway.ByToken}}); err == nil {
		g.token, err = tokenOf(p)
	}
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// tokenOf provisions an app and returns a token for it.
func tokenOf(p *process.Process) (string, error) {
	pair, err := provision(client, p.URL("auth"), "")
	if err != nil {
		return "", err
	}
	source, err := auth.NewSource(auth.Config{URL: p.URL("auth"), AccessKeyID: pair.accessKeyID, SecretKey: auth.Secret(pair.secretKey)})
	if err != nil {
		return "", err
	}
	return source.Token(context.Background())
}

// policy sets the policy of a service.
func (g *gate) policy(service string, p *gateway.Policy) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	target := g.URL("gateway-management") + gateway.Base + "/policies/" + service
	req, err := http.NewRequest(http.MethodPut, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("PUT %s: %d %s", target, resp.StatusCode, answer)
	}
	return err
}

func (g *gate) authorization() string { return "Authorization: Bearer " + g.token + "\r\n" }

// offer returns the registration of a service at the gate's address.
func (g *gate) offer(name string) []byte {
	return fmt.Appendf(nil, `{"serName":%q,"version":"1","state":"ACTIVE","serializer":"JSON","transportInfo":{"id":"t","name":"REST","type":"REST_HTTP",`+
		`"protocol":"HTTP","version":"1.1","endpoint":{"uris":["http://%s/%[1]s"]},"security":{}}}`, name, g.service)
}

// publish registers services, 500 to an app, and waits until all of them are reachable through the gateway.
func (g *gate) publish(names ...string) error {
	apps := make([]string, len(names)/500+1)
	for i := range apps {
		apps[i] = uuid.NewString()
	}
	_, err := share(clients, len(names), func(_, i int) error {
		_, err := post(servicesURL(g.Process, apps[i/500]), g.offer(names[i]))
		return err
	})
	if err != nil {
		return err
	}
	conns := newWires()
	defer conns.close()
	for _, name := range names {
		if err := g.await(conns, name, http.StatusOK); err != nil {
			return err
		}
	}
	return nil
}

// server returns the gateway as an httpServer whose requests go to the services in turn.
func (g *gate) server(name string, services ...string) *httpServer {
	s := &httpServer{figures: figures{pid: g.Pid()}, name: name, addr: hostOf(g.URL("gateway")), size: answerSize}
	for _, service := range services {
		s.requests = append(s.requests, get(s.addr, "/services/"+service+"/", g.authorization()))
	}
	return s
}

// startBareProxy starts a bare httputil.ReverseProxy in front of a service; its requests carry the same header.
func startBareProxy(to, header string) (*httpServer, error) {
	addr, pid, stop, err := startYardstick("yardstick-proxy", to)
	if err != nil {
		return nil, err
	}
	return &httpServer{
		figures: figures{pid: pid}, name: "a bare httputil.ReverseProxy", addr: addr, size: answerSize, stop: stop,
		requests: [][]byte{get(addr, "/services/bench/", header)},
	}, nil
}

// benchGateway compares service calls through the gateway, each with token verification and an access record, with the same
// calls through other proxies.
func benchGateway(o *options) error {
	g, err := startGate(o, "yardstick-service")
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.publish("bench"); err != nil {
		return err
	}
	ours := g.server("the gateway", "bench")
	servers := []*httpServer{ours}
	targets := map[*httpServer]float64{}
	for _, y := range []struct {
		start  func() (*httpServer, error)
		target float64
	}{
		{func() (*httpServer, error) { return startBareProxy(g.service, g.authorization()) }, 0.95},
		{func() (*httpServer, error) { return startHAProxy(o, g) }, 0.6},
		{func() (*httpServer, error) { return startCaddy(o, g) }, 1.4},
	} {
		s, err := y.start()
		if errors.Is(err, errMissing) {
			report("skipped: %v", err)
			continue
		}
		if err != nil {
			return err
		}
		defer s.stop()
		servers, targets[s] = append(servers, s), y.target
	}
	if err := alternateHTTP(o, servers...); err != nil {
		return err
	}
	for _, s := range servers[1:] {
		compareFigures("calls with 2 KB answers, 64 connections, yardstick: "+s.name, "call", &ours.figures, &s.figures, targets[s])
	}
	return g.countRecords(ours)
}

// countRecords checks that there is a record of every call.
func (g *gate) countRecords(s *httpServer) error {
	written, err := g.metric("mep_gateway_records_total")
	if err != nil {
		return err
	}
	calls, err := g.metric(`mep_gateway_service_requests_total{class="2xx",service="bench"}`)
	if err != nil {
		return err
	}
	lines, err := filepath.Glob(filepath.Join(g.dir, "access", "*"))
	if err != nil {
		return err
	}
	size := int64(0)
	for _, file := range lines {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		size += info.Size()
	}
	report("%s answered %.0f calls and wrote %.0f records; the %d files of the last ones have %d MB", s.name, calls, written, len(lines), size>>20)
	return nil
}

// metric reads a metric, which may have labels, from the operations listener.
func (g *gate) metric(name string) (float64, error) {
	resp, err := client.Get(g.URL("ops") + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(l, name+" "); ok {
			var v float64
			_, err := fmt.Sscan(value, &v)
			return v, err
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}
