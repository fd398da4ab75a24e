package rules

import (
	"sync"

	"github.com/openmep/mep/api/state"
)

// own is what this process is about to write, so that it need not decode it again when the write comes back from etcd.
type own[R any] struct {
	mu      sync.Mutex
	records map[string]written[R]
}

type written[R any] struct {
	value string
	rec   state.Rules[R]
}

// maxOwn bounds how many are kept: those of transactions that did not happen do not come back.
const maxOwn = 256

// keep remembers what is written under a key. rec is shared and must not be changed from here on.
func (o *own[R]) keep(key, value string, rec state.Rules[R]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.records == nil || len(o.records) >= maxOwn {
		o.records = make(map[string]written[R])
	}
	o.records[key] = written[R]{value: value, rec: rec}
}

// take returns the record that a value was made of, if this process made it.
func (o *own[R]) take(key string, value []byte) (state.Rules[R], bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w, ok := o.records[key]
	if !ok || w.value != string(value) {
		return state.Rules[R]{}, false
	}
	delete(o.records, key)
	return w.rec, true
}
