package client

import (
	"encoding/json"
	"fmt"

	"github.com/openmep/mep/api/mm5"
)

// EventBegun is the first event of a stream that does not resume an earlier one. The client generates it, not the platform.
// Every later change is reported as an event, so nothing is missed between the stream and lists that are then read from the
// same platform process. EventBegun has no data.
const EventBegun mm5.EventType = "begun"

// Event is a change at the platform.
type Event struct {
	// ID identifies the event. A stream with this ID as EventQuery.After continues with the next event.
	ID string
	// Type determines the type of Data: one of the ...Event types of package mm5, or json.RawMessage for types unknown to this
	// package.
	Type mm5.EventType
	Data any
}

// readers decode the data of events.
var readers = map[mm5.EventType]func([]byte) (any, error){
	mm5.EventApp: read[mm5.AppEvent], mm5.EventService: read[mm5.ServiceEvent], mm5.EventRule: read[mm5.RuleEvent],
	mm5.EventRuleStatus: read[mm5.RuleStatusEvent], mm5.EventOperation: read[mm5.OperationEvent], mm5.EventReset: read[mm5.ResetEvent],
}

func read[T any](data []byte) (any, error) {
	var v T
	err := json.Unmarshal(data, &v)
	return v, err
}

// eventOf decodes an event.
func eventOf(id, kind string, data []byte) (Event, error) {
	e := Event{ID: id, Type: mm5.EventType(kind)}
	reader, known := readers[e.Type]
	if !known {
		e.Data = json.RawMessage(data)
		return e, nil
	}
	var err error
	if e.Data, err = reader(data); err != nil {
		e.Data = json.RawMessage(data)
		return e, fmt.Errorf("event %s of the type %s cannot be read: %w", id, kind, err)
	}
	return e, nil
}
