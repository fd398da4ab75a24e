package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// findListeners reads the listeners' URLs from the log and, unless readiness is not required, checks that the process is ready.
func (p *Process) findListeners() error {
	urls := make(map[string]string)
	for _, m := range listening.FindAllStringSubmatch(p.Log(), -1) {
		urls[m[1]] = m[2]
	}
	for _, name := range append([]string{"ops"}, p.spec.listeners()...) {
		if urls[name] == "" {
			return fmt.Errorf("the log does not say where %s listens", name)
		}
	}
	p.mu.Lock()
	p.urls = urls
	p.mu.Unlock()
	if p.spec.unready {
		return nil
	}
	status, r, err := p.Ready()
	if err != nil {
		return err
	}
	if status != http.StatusOK || !r.Ready {
		return fmt.Errorf("/readyz answers %d %+v", status, r)
	}
	for name, u := range urls {
		if r.Listeners[name] != u {
			return fmt.Errorf("/readyz shows listener %s at %q, the log at %q", name, r.Listeners[name], u)
		}
	}
	return nil
}

// Note names a part of the platform and describes its problem.
type Note struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Readiness is the response of /readyz.
type Readiness struct {
	Ready     bool              `json:"ready"`
	Listeners map[string]string `json:"listeners"`
	NotReady  []Note            `json:"notReady"`
	Degraded  []Note            `json:"degraded"`
}

// IsDegraded reports whether a part works with restrictions.
func (r Readiness) IsDegraded(name string) bool {
	for _, n := range r.Degraded {
		if n.Name == name {
			return true
		}
	}
	return false
}

// Ready requests /readyz.
func (p *Process) Ready() (status int, r Readiness, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL("ops")+"/readyz", nil)
	if err != nil {
		return 0, r, err
	}
	transport, err := p.transport("")
	if err != nil {
		return 0, r, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, r, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, r, err
	}
	return resp.StatusCode, r, json.Unmarshal(body, &r)
}

// URL returns the base URL of a listener, such as "mp1", "auth" or "ops". It may change with a restart.
func (p *Process) URL(listener string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.urls[listener]
}

// Addr returns the host:port of a listener.
func (p *Process) Addr(listener string) string {
	_, addr, _ := strings.Cut(p.URL(listener), "://")
	return addr
}
