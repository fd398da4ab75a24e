package follow

import (
	"slices"

	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// Config says what records are made of what is in etcd.
type Config struct {
	// Table is what applies to the table as a whole.
	Table table.Config
	// Static are records that are always there, such as the addresses of name servers.
	Static []table.Record
	// TTL is that of rules without one, and of services, in seconds.
	TTL uint32
	// Views are the views; the first has number 1. Clients says which clients are in which; nil: none is in any. A table is of use only
	// together with these: the numbers are those of this configuration.
	Views   []View
	Clients *protect.Map[table.View]
	// ServiceZone is the zone of registered services; empty: they are not served.
	ServiceZone wire.Name
}

// View says which records are seen by its clients only.
type View struct {
	// Name is what records of the management call it.
	Name string
	// Apps are the app instances whose rules are in it, Names those names whose rules are, and all below them.
	Apps  []string
	Names []wire.Name
}

// viewOf is the view of a rule.
func (c *Config) viewOf(app string, name wire.Name) table.View {
	for i := range c.Views {
		v := &c.Views[i]
		if slices.Contains(v.Apps, app) || slices.ContainsFunc(v.Names, name.Within) {
			return table.View(i + 1)
		}
	}
	return table.Everyone
}

// viewNamed is the view a record of the management names; false when there is none of that name.
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
