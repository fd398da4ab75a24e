package table

import "github.com/openmep/mep/dnsagent/wire"

// Record is one record of the table.
type Record struct {
	// Name is a key; its first label may be an asterisk.
	Name wire.Name
	// Data is what the record holds in wire form, names in it not compressed.
	Data string
	// ID is what the record is called where it comes from, such as a dnsRuleId. It is shown to people.
	ID string
	// TTL is in seconds.
	TTL uint32
	// Type is the type of record.
	Type uint16
	// View is whose clients see the record: Everyone, or the number of a view.
	View View

	// Weak says that the record gives way to those of its name that are not weak, and that no others are derived from it.
	Weak bool

	// derived says that it was made from another record, and gives way to those of its type that were not.
	derived bool
}

// View is the number of a view.
type View uint8

// Everyone is the view of records that all clients see, and of clients that no view is for.
const Everyone View = 0

// MaxViews is how many views there can be besides Everyone.
const MaxViews = 250
