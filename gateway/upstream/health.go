package upstream

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// maxProbes bounds the health checks under way at a time.
	maxProbes = 64
	// maxProbeBody is how much of the answer to a health check is read, in bytes, so that its connection can be used again.
	maxProbeBody = 64 << 10
)

// checks are the health checks of a Manager that runs.
type checks struct {
	manager *Manager
	ctx     context.Context
	slots   chan struct{}
	running sync.WaitGroup
	stop    map[*Endpoint]context.CancelFunc
}

func newChecks(ctx context.Context, m *Manager) *checks {
	return &checks{manager: m, ctx: ctx, slots: make(chan struct{}, maxProbes), stop: make(map[*Endpoint]context.CancelFunc)}
}

// begin checks an endpoint from now on.
func (c *checks) begin(e *Endpoint) {
	ctx, cancel := context.WithCancel(c.ctx)
	c.stop[e] = cancel
	c.running.Go(func() { c.run(ctx, e) })
}

// end checks an endpoint no more.
func (c *checks) end(e *Endpoint) {
	if cancel := c.stop[e]; cancel != nil {
		cancel()
		delete(c.stop, e)
	}
}

// wait returns when no check is under way. The context of the checks must have ended.
func (c *checks) wait() {
	for e := range c.stop {
		c.end(e)
	}
	c.running.Wait()
}

func (c *checks) run(ctx context.Context, e *Endpoint) {
	h := e.profile.health
	// Endpoints that came at the same time are not asked at the same time.
	next := time.NewTimer(rand.N(min(h.interval, time.Second)))
	defer next.Stop()
	row := 0 // how many results in a row speak against the present state
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		select {
		case <-ctx.Done():
			return
		case c.slots <- struct{}{}:
		}
		err := e.probe(ctx)
		<-c.slots
		if ctx.Err() != nil {
			return
		}
		row = e.judge(err, row)
		next.Reset(h.interval + rand.N(h.interval/10+1))
	}
}

// judge draws the conclusion of a health check and returns how many results in a row speak against the state then.
func (e *Endpoint) judge(err error, row int) int {
	h, unhealthy := e.profile.health, e.unhealthy.Load()
	if (err != nil) == unhealthy {
		if err != nil {
			e.because(err)
		}
		return 0
	}
	row++
	switch {
	case unhealthy && row >= h.healthy:
		e.since.Store(e.manager.now())
		e.unhealthy.Store(false)
		e.manager.log.Info("endpoint is healthy", "url", e.key.url)
		return 0
	case !unhealthy && row >= h.unhealthy:
		e.because(err)
		e.unhealthy.Store(true)
		e.manager.log.Warn("endpoint is unhealthy", "url", e.key.url, "error", err)
		return 0
	}
	return row
}

func (e *Endpoint) because(err error) {
	why := "health check: " + err.Error()
	e.reason.Store(&why)
}

// probe makes one health check.
func (e *Endpoint) probe(ctx context.Context) error {
	h := e.profile.health
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	path, err := url.Parse(h.path)
	if err != nil {
		return err
	}
	req := (&http.Request{
		Method: http.MethodGet, Host: e.target.host, Header: http.Header{"User-Agent": {"mep-gateway"}},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, URL: new(url.URL),
	}).WithContext(ctx)
	e.target.place(req.URL, path)
	resp, err := e.deliver(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxProbeBody)
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("it answered %s", strings.TrimSpace(resp.Status))
	}
	return nil
}
