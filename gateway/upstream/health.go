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
	// maxProbes bounds the number of concurrent health checks.
	maxProbes = 64
	// maxProbeBody is how many bytes of a health check response are read so that the connection can be reused.
	maxProbeBody = 64 << 10
)

// checks runs the health checks of a running Manager.
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

func (c *checks) begin(e *Endpoint) {
	ctx, cancel := context.WithCancel(c.ctx)
	c.stop[e] = cancel
	c.running.Go(func() { c.run(ctx, e) })
}

func (c *checks) end(e *Endpoint) {
	if cancel := c.stop[e]; cancel != nil {
		cancel()
		delete(c.stop, e)
	}
}

// wait stops all checks and waits until none is in flight. The context of the checks must be done.
func (c *checks) wait() {
	for e := range c.stop {
		c.end(e)
	}
	c.running.Wait()
}

func (c *checks) run(ctx context.Context, e *Endpoint) {
	h := e.profile.health
	// Endpoints that were added at the same time are not checked at the same time.
	next := time.NewTimer(rand.N(min(h.interval, time.Second)))
	defer next.Stop()
	row := 0 // how many consecutive results contradict the current state
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

// judge applies the result of a health check and returns how many consecutive results now contradict the current state.
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
