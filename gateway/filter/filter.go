// Package filter is the contract between the gateway and filters that others write: a filter is a Definition that is handed to the
// gateway when a program is made of it, and takes its place in the sequence that gateway.filters configures.
//
// A filter sees calls that are authenticated, authorised and counted already, and the response on its way back. It must pass on
// http.ResponseController's abilities: a ResponseWriter it wraps has a method Unwrap. It may answer by itself, and does not call the
// next handler then.
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

// Filter wraps the handler that comes after it.
type Filter = func(http.Handler) http.Handler

// Env is what a filter gets from the gateway besides its configuration.
type Env struct {
	// Log is the gateway's log, with the name of the filter.
	Log *slog.Logger
	// Metrics takes metrics; their names begin with "mep_gateway_filter_" and the name of the filter.
	Metrics prometheus.Registerer
}

// Definition is a kind of filter.
type Definition struct {
	// Name is what the configuration calls it.
	Name string

	check func(config json.RawMessage) error
	make  func(config json.RawMessage, env Env) (Filter, error)
}

// Checker is a configuration that can say everything that is wrong with it.
type Checker interface {
	Check(*problem.InvalidParams)
}

// Define makes the definition of a filter with a configuration of the type C, a struct with json tags. Members of the configuration
// that C does not have are ignored unless it has a field for them (see package bind). If *C is a Checker, it is asked. build is called
// for every place in the sequence the filter has, and again when the configuration is read again; the Filter it returns is called for
// every policy, so that what is to be shared by all calls belongs to build.
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

// Check reports what is wrong with a configuration, as far as that is known without a filter being made of it.
func (d Definition) Check(config json.RawMessage) error {
	if err := d.check(config); err != nil {
		return fmt.Errorf("filter %s: %w", d.Name, err)
	}
	return nil
}

// Make makes a filter of its configuration, a JSON object or nothing.
func (d Definition) Make(config json.RawMessage, env Env) (Filter, error) {
	f, err := d.make(config, env)
	if err != nil {
		return nil, fmt.Errorf("filter %s: %w", d.Name, err)
	}
	return f, nil
}

// Call is what the gateway knows of a request. It must not be changed.
type Call struct {
	// RequestID is the id of the request, as in X-Request-Id and in the access record.
	RequestID string
	// Client is the address of the client.
	Client netip.Addr
	// Consumer is who calls, "" when nobody had to say; Scopes is what it may do and Via how it proved who it is: token, apiKey or
	// certificate.
	Consumer string
	Scopes   []string
	Via      string
	// Route is the name of the route, Service the serName of the service it leads to, "" when it leads to none.
	Route, Service string
}

type key struct{}

// Key is the key under which contexts of requests hold the *Call.
var Key any = key{}

// CallOf returns what the gateway knows of the request with this context; nil when it did not come through a gateway.
func CallOf(ctx context.Context) *Call {
	c, _ := ctx.Value(Key).(*Call)
	return c
}
