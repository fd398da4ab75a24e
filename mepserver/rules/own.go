package rules

import (
	"sync"

	"github.com/openmep/mep/api/state"
)

// own holds the records this process is about to write, so that it need not decode them when the writes come back from etcd.
type own[R any] struct {
	mu      sync.Mutex
	records map[string]written[R]
	bytes   int // upper bound on the size of records
}

type written[R any] struct {
	value string
	rec   state.Rules[R]
}

// Bounds on the number of records kept, on the bytes of one and on those of all: a record planned but never written
// does not come back.
const (
	maxOwn      = 256
	maxOwnValue = 64 << 10
	maxOwnBytes = 1 << 20
)

// keep stores the record to be written under a key. rec is shared and must not be modified afterwards.
func (o *own[R]) keep(key, value string, rec state.Rules[R]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(value) > maxOwnValue {
		return
	}
	if o.bytes += len(value); o.records == nil || len(o.records) >= maxOwn || o.bytes > maxOwnBytes {
		o.records, o.bytes = make(map[string]written[R]), len(value)
	}
	o.records[key] = written[R]{value: value, rec: rec}
}

// take removes and returns the record that value encodes, if this process made it.
func (o *own[R]) take(key string, value []byte) (state.Rules[R], bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w, ok := o.records[key]
	if !ok || w.value != string(value) {
		return state.Rules[R]{}, false
	}
	delete(o.records, key)
	o.bytes -= len(w.value)
	return w.rec, true
}
