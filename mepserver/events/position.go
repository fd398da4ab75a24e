package events

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// position is a place in the sequence of events: after one event, or after all events of a revision.
type position struct {
	// revision is an etcd revision, from 1.
	revision int64
	// index is the index of the event among those made from the revision, from 0; whole stands for the last one, whatever its
	// index.
	index int
}

// whole is the index of the position after all events of a revision.
const whole = math.MaxInt32

// parsePosition parses the id of an event: "{revision}-{index}", or "{revision}" for all events of the revision. Every position
// has exactly one spelling.
func parsePosition(id string) (position, error) {
	revision, index, divided := strings.Cut(id, "-")
	p := position{index: whole}
	var ok, known bool
	p.revision, ok = parseNumber(revision, math.MaxInt64)
	if divided {
		var i int64
		i, known = parseNumber(index, whole-1)
		p.index = int(i)
	}
	if !ok || p.revision == 0 || divided && !known {
		return position{}, fmt.Errorf("is not the id of an event, such as %s", position{1234, 0})
	}
	return p, nil
}

// parseNumber parses a number from 0 to most, without a sign or leading zeros.
func parseNumber(s string, most int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n <= most && strconv.FormatInt(n, 10) == s
}

// String returns the id of the event at the position.
func (p position) String() string {
	if p.index == whole {
		return strconv.FormatInt(p.revision, 10)
	}
	return strconv.FormatInt(p.revision, 10) + "-" + strconv.Itoa(p.index)
}

// before reports whether p is earlier than q.
func (p position) before(q position) bool {
	return p.revision < q.revision || p.revision == q.revision && p.index < q.index
}
