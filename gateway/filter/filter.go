// Package filter is the interface between the gateway and third-party filters. A filter is a Definition that is passed to the gateway when
// a program is built with it; gateway.filters configures its place in the sequence.
//
// A filter sees calls that are already authenticated, authorised and counted, and the response on its way back. It must preserve the
// abilities of http.ResponseController: a ResponseWriter that it wraps has a method Unwrap. It may respond by itself, in which case it does
// not call the next handler.
package filter

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/bind"
)

// Filter wraps the next handler.
type Filter = func(http.Handler) http.Handler

// Env is what the gateway provides to a filter in addition to its configuration.
type Env struct {
	// Log is the gateway's log, with the name of the filter as an attribute.
	Log *slog.Logger
	// Metrics registers metrics; their names begin with "mep_gateway_filter_" and the name of the filter.
	Metrics prometheus.Registerer
}

// Definition is a kind of filter.
type Definition struct {
	// Name is the name of the filter in the configuration.
	Name string

	check func(config json.RawMessage) error
	make  func(config json.RawMessage, env Env) (Filter, error)
}

// Checker is implemented by configurations that can report their own faults.
type Checker interface {
	Check(*problem.InvalidParams)
}

// Define returns the definition of a filter whose configuration has the type C, a struct with json tags. Members of the configuration that
// C does not have are ignored unless C has a field for them (see package bind). If *C implements Checker, Check is called. build is called
// for every place of the filter in the sequence, and again when the configuration is reloaded. The Filter that it returns is called for
// every policy, so state shared by all calls belongs in build.
func Define[C any](name string, build func(cfg C, env Env) (Filter, error)) Definition {
	read := func(config json.RawMessage) (cfg C, err error) {
		var faults problem.InvalidParams
		if len(config) > 0 {
			if err := bind.JSON(config, &cfg, &faults); err != nil {
				return cfg, err
			}
		}
		if c, ok := any(&cfg).(Checker); ok && len(faults) == 0 {
			c.Check(&faults)
		}
		return cfg, faults.Err()
	}
	return Definition{
		Name:  name,
		check: func(config json.RawMessage) error { _, err := read(config); return err },
		make: func(config json.RawMessage, env Env) (Filter, error) {
			cfg, err := read(config)
			if err != nil {
				return nil, err
			}
			return build(cfg, env)
		},
	}
}

// Check reports the faults of a configuration that can be found without making a filter.
func (d Definition) Check(config json.RawMessage) error {
	if err := d.check(config); err != nil {
		return fmt.Errorf("filter %s: %w", d.Name, err)
	}
	return nil
}

// Make makes a filter from its configuration, a JSON object or nothing.
func (d Definition) Make(config json.RawMessage, env Env) (Filter, error) {
	f, err := d.make(config, env)
	if err != nil {
		return nil, fmt.Errorf("filter %s: %w", d.Name, err)
	}
	return f, nil
}

// Call is what the gateway knows about a request. It must not be modified.
type Call struct {
	// RequestID is the id of the request, as in X-Request-Id and in the access record.
	RequestID string
	// Client is the address of the client.
	Client netip.Addr
	// Consumer is the caller, "" if it is anonymous; Scopes are the scopes of the caller, and Via is how it authenticated: token, apiKey or
	// certificate.
	Consumer string
	Scopes   []string
	Via      string
	// Route is the name of the route. Service is the serName of the target service, "" if the target is not a service.
	Route, Service string
}

type key struct{}

// Key is the key of the *Call in the context of a request.
var Key any = key{}

// CallOf returns what the gateway knows about the request with this context; nil if the request did not come through a gateway.
func CallOf(ctx context.Context) *Call {
	c, _ := ctx.Value(Key).(*Call)
	return c
}
