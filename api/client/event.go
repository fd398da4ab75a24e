package client

import (
	"encoding/json"
	"fmt"

	"github.com/openmep/mep/api/mm5"
)

// EventBegun is the first event of a stream that resumes nothing. The platform does not send it: it says that every change from
// now on will be an event, so that nothing falls between the stream and lists that are read now from the same process. It has no
// data.
const EventBegun mm5.EventType = "begun"

// Event is a change at the platform.
type Event struct {
	// ID names the event. A stream that begins After it goes on with what came next.
	ID string
	// Type says what Data is: one of the ...Event types of package mm5, or a json.RawMessage where this package does not know the type.
	Type mm5.EventType
	Data any
}

// readers read the data of events.
var readers = map[mm5.EventType]func([]byte) (any, error){
	mm5.EventApp: read[mm5.AppEvent], mm5.EventService: read[mm5.ServiceEvent], mm5.EventRule: read[mm5.RuleEvent],
	mm5.EventRuleStatus: read[mm5.RuleStatusEvent], mm5.EventOperation: read[mm5.OperationEvent], mm5.EventReset: read[mm5.ResetEvent],
}

func read[T any](data []byte) (any, error) {
	var v T
	err := json.Unmarshal(data, &v)
	return v, err
}

// eventOf makes an event of what was sent.
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
