package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/gateway/filter"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/pipeline"
)

// CheckFilters checks gateway.filters against the kinds of filters that a program has.
func (c *Config) CheckFilters(kinds []filter.Definition) error {
	var faults []error
	for i, fc := range c.Filters {
		if d, ok := definition(kinds, fc.Name); !ok {
			faults = append(faults, fmt.Errorf("gateway.filters[%d]: this program has no filter %q: it has %s", i, fc.Name, names(kinds)))
		} else if err := d.Check(fc.Config); err != nil {
			faults = append(faults, fmt.Errorf("gateway.filters[%d]: %w", i, err))
		}
		for k, s := range fc.Exclude {
			if _, err := match.NewPattern(s); err != nil {
				faults = append(faults, fmt.Errorf("gateway.filters[%d].exclude[%d] %w", i, k, err))
			}
		}
	}
	return errors.Join(faults...)
}

func definition(kinds []filter.Definition, name string) (filter.Definition, bool) {
	for _, d := range kinds {
		if d.Name == name {
			return d, true
		}
	}
	return filter.Definition{}, false
}

func names(kinds []filter.Definition) string {
	list := make([]string, len(kinds))
	for i, d := range kinds {
		list[i] = d.Name
	}
	return cmp.Or(strings.Join(list, ", "), "none")
}

// filters makes the filters of the configuration. Their metrics replace those in use once register is called.
func (g *Gateway) filters(cfg *Config) (list []pipeline.Named, register func(), err error) {
	pending := &later{to: g.env.Metrics}
	if err := cfg.CheckFilters(g.options.Filters); err != nil {
		return nil, nil, err
	}
	for i, fc := range cfg.Filters {
		d, _ := definition(g.options.Filters, fc.Name)
		f, err := d.Make(fc.Config, filter.Env{Log: g.env.Log.With("filter", fc.Name), Metrics: pending})
		if err != nil {
			return nil, nil, fmt.Errorf("gateway.filters[%d]: %w", i, err)
		}
		list = append(list, pipeline.Named{Name: fc.Name, Filter: f, Exclude: fc.Exclude})
	}
	return list, func() {
		if err := pending.register(); err != nil {
			g.env.Log.Error("the metrics of a filter cannot be registered", "error", err)
		}
	}, nil
}

// later registers the metrics of filters once the filters are put to use. They replace those that the filters registered before.
type later struct {
	to         prometheus.Registerer
	collectors []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (l *later) Register(c prometheus.Collector) error {
	l.collectors = append(l.collectors, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (l *later) MustRegister(cs ...prometheus.Collector) { l.collectors = append(l.collectors, cs...) }

// Unregister implements prometheus.Registerer.
func (l *later) Unregister(c prometheus.Collector) bool { return l.to.Unregister(c) }

func (l *later) register() error {
	var faults []error
	for _, c := range l.collectors {
		err := l.to.Register(c)
		if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
			l.to.Unregister(already.ExistingCollector)
			err = l.to.Register(c)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
