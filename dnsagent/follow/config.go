package follow

import (
	"slices"

	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// Config says how to turn the contents of etcd into DNS records.
type Config struct {
	// Table applies to the table as a whole.
	Table table.Config
	// Static are records that are always there, such as the addresses of name servers.
	Static []table.Record
	// TTL is the TTL, in seconds, of rules without one and of services.
	TTL uint32
	// Views are the views; the first has number 1. Clients maps clients to views; nil means that no client is in a view. A table is
	// usable only together with these fields: its view numbers are those of this configuration.
	Views   []View
	Clients *protect.Map[table.View]
	// ServiceZone is the zone of registered services; empty means that services are not served.
	ServiceZone wire.Name
}

// View selects the records that only its clients see.
type View struct {
	// Name is the name by which records of the management API refer to the view.
	Name string
	// Apps are the app instances whose rules are in the view. Rules for Names and for all names below them are in it as well.
	Apps  []string
	Names []wire.Name
}

// viewOf returns the view of a rule.
func (c *Config) viewOf(app string, name wire.Name) table.View {
	for i := range c.Views {
		v := &c.Views[i]
		if slices.Contains(v.Apps, app) || slices.ContainsFunc(v.Names, name.Within) {
			return table.View(i + 1)
		}
	}
	return table.Everyone
}

// viewNamed returns the view that a record of the management API names; false if there is no such view.
func (c *Config) viewNamed(name string) (table.View, bool) {
	if name == "" {
		return table.Everyone, true
	}
	for i := range c.Views {
		if c.Views[i].Name == name {
			return table.View(i + 1), true
		}
	}
	return 0, false
}
