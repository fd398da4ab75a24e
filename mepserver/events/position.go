package events

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// position is a place in the sequence of events: after one event, or after all events of a revision.
type position struct {
	// revision is one of etcd, from 1.
	revision int64
	// index is that of the event among those made of the revision, from 0; whole stands for the last one, whatever its index.
	index int
}

// whole is the index of the position after all events of a revision.
const whole = math.MaxInt32

// parsePosition reads the id of an event: "{revision}-{index}", or "{revision}" for the whole of it. Every position is written
// in one way only.
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

// parseNumber reads a number from 0 to most without a sign or leading zeros.
func parseNumber(s string, most int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n <= most && strconv.FormatInt(n, 10) == s
}

// String is the id of the event at the position.
func (p position) String() string {
	if p.index == whole {
		return strconv.FormatInt(p.revision, 10)
	}
	return strconv.FormatInt(p.revision, 10) + "-" + strconv.Itoa(p.index)
}

// before reports whether p is an earlier place than q.
func (p position) before(q position) bool {
	return p.revision < q.revision || p.revision == q.revision && p.index < q.index
}
