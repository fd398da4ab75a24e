package owned

import (
	"strconv"

	"github.com/openmep/mep/api/state"
)

// Entry is the in-memory form of a record that needs nothing beyond what is stored.
type Entry[R state.Record] struct {
	AppInstanceID string
	ID            string
	Record        R
	// ETag is the entity-tag of the resource, with quotes.
	ETag string
}

// DecodeEntry decodes a record stored below a prefix.
func DecodeEntry[R state.Record](prefix, key string, value []byte, modRevision int64) (e Entry[R], err error) {
	if e.AppInstanceID, e.ID, err = state.SplitKey(prefix, key); err != nil {
		return e, err
	}
	e.Record, err = state.Decode[R](value)
	e.ETag = `"` + strconv.FormatInt(modRevision, 36) + `"`
	return e, err
}
