package table

import "github.com/openmep/mep/dnsagent/wire"

// Record is one record of the table.
type Record struct {
	// Name is the owner name, as a key; its first label may be an asterisk.
	Name wire.Name
	// Data is the data of the record in wire form, without compressed names.
	Data string
	// ID identifies the record at its source, such as a dnsRuleId. It is shown to people.
	ID string
	// TTL is in seconds.
	TTL uint32
	// Type is the type of the record.
	Type uint16
	// View is the view whose clients see the record, or Everyone.
	View View

	// Weak means that the record gives way to those of its name that are not weak, and that none is derived from it.
	Weak bool

	// derived means that the record was made from another one, and gives way to those of its type that were not.
	derived bool
}

// View is the number of a view.
type View uint8

// Everyone is the view of records that all clients see, and of clients without a view of their own.
const Everyone View = 0

// MaxViews is the maximum number of views besides Everyone.
const MaxViews = 250
