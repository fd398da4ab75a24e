package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openmep/mep/api/mp1"
)

// ServiceHead is the part of a service record that readers of many records need: the members a service is found by.
// Decoding it costs a fraction of decoding the whole record.
type ServiceHead struct {
	// SerName, CategoryID, State, Scope and ConsumedLocalOnly are members of the ServiceInfo.
	SerName, CategoryID string
	State               mp1.ServiceState
	Scope               mp1.LocalityType
	ConsumedLocalOnly   bool
	// Interval is the livenessInterval in seconds, 0 when there is none, and Asked the interval the app proposed.
	Interval, Asked int
	// Beat and Suspended are as in the record.
	Beat, Suspended time.Time
	// Info is the ServiceInfo as it is stored, a JSON object.
	Info []byte
}

// DecodeServiceHead decodes the head of a service record, with the errors of Decode. Info aliases value.
func DecodeServiceHead(value []byte) (ServiceHead, error) {
	var rec struct {
		Version
		Info      json.RawMessage `json:"info"`
		Asked     int             `json:"asked"`
		Beat      time.Time       `json:"beat"`
		Suspended time.Time       `json:"suspended"`
	}
	if err := json.Unmarshal(value, &rec); err != nil {
		return ServiceHead{}, fmt.Errorf("decode service: %w", err)
	}
	if rec.V < 1 || rec.V > SchemaVersion {
		return ServiceHead{}, fmt.Errorf("decode service: schema version %d is not one this release knows (1 to %d)", rec.V, SchemaVersion)
	}
	var info struct {
		SerName     string `json:"serName"`
		SerCategory struct {
			ID string `json:"id"`
		} `json:"serCategory"`
		State             mp1.ServiceState `json:"state"`
		Scope             mp1.LocalityType `json:"scopeOfLocality"`
		ConsumedLocalOnly bool             `json:"consumedLocalOnly"`
		Interval          int              `json:"livenessInterval"`
	}
	if err := json.Unmarshal(rec.Info, &info); err != nil {
		return ServiceHead{}, fmt.Errorf("decode service: %w", err)
	}
	if len(rec.Info) < len(`{"serName":"x"}`) || rec.Info[0] != '{' {
		return ServiceHead{}, errors.New("decode service: info is not a ServiceInfo")
	}
	return ServiceHead{
		SerName: info.SerName, CategoryID: info.SerCategory.ID, State: info.State, Scope: info.Scope,
		ConsumedLocalOnly: info.ConsumedLocalOnly, Interval: info.Interval, Asked: rec.Asked,
		Beat: rec.Beat, Suspended: rec.Suspended, Info: rec.Info,
	}, nil
}
