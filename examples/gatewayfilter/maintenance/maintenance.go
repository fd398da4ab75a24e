// Package maintenance is a filter for the gateway. It responds to calls to services that are under maintenance.
package maintenance

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/gateway/filter"
)

// Config is the configuration of the filter.
type Config struct {
	// Services are the names (serName) of the services under maintenance.
	Services []string `json:"services"`
	// RetryAfter is when clients should retry. Default: 1m.
	RetryAfter gateway.Duration `json:"retryAfter,omitempty"`

	Unknown gateway.Unknown `json:"-" bind:"rest"`
}

// Check implements filter.Checker.
func (c *Config) Check(faults *problem.InvalidParams) {
	if len(c.Services) == 0 {
		faults.Add("services", "must have at least one service")
	}
	if c.RetryAfter != "" && c.RetryAfter.Or(0) <= 0 {
		faults.Add("retryAfter", `must be a duration such as "5m"`)
	}
	for name := range c.Unknown {
		faults.Add(name, "is not a member here")
	}
}

// Definition returns the definition of the filter "maintenance".
func Definition() filter.Definition { return filter.Define("maintenance", newFilter) }

func newFilter(cfg Config, env filter.Env) (filter.Filter, error) {
	closed := make(map[string]bool, len(cfg.Services))
	for _, s := range cfg.Services {
		closed[s] = true
	}
	answered := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "mep_gateway_filter_maintenance_answered_total", Help: "Calls that were answered because their service is being worked on.",
	})
	if err := env.Metrics.Register(answered); err != nil {
		return nil, err
	}
	seconds := strconv.Itoa(int(math.Ceil(cfg.RetryAfter.Or(time.Minute).Seconds())))
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			call := filter.CallOf(r.Context())
			if call == nil || !closed[call.Service] {
				next.ServeHTTP(w, r)
				return
			}
			answered.Inc()
			env.Log.Debug("answered", "service", call.Service, "consumer", call.Consumer, "request_id", call.RequestID)
			w.Header().Set("Retry-After", seconds)
			http.Error(w, fmt.Sprintf("%s is being worked on", call.Service), http.StatusServiceUnavailable)
		})
	}, nil
}
