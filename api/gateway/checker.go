package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/openmep/mep/api/problem"
)

// maxFaults is the maximum number of faults collected for one value.
const maxFaults = 50

// checker records faults below a place.
type checker struct{ problem.Place }

func newChecker(faults *problem.InvalidParams) checker {
	return checker{problem.Place{Faults: faults, Most: maxFaults}}
}

func (c checker) in(name string) checker { return checker{c.In(name)} }

func (c checker) item(name string, i int) checker { return checker{c.Item(name, i)} }

// text checks a string written by people or other programs, which may be empty.
func (c checker) text(name, value string, limit int) {
	switch {
	case utf8.RuneCountInString(value) > limit:
		c.Fault(name, fmt.Sprintf("must be at most %d characters long", limit))
	case !utf8.ValidString(value):
		c.Fault(name, "must be UTF-8")
	case strings.ContainsFunc(value, unicode.IsControl):
		c.Fault(name, "must not have control characters")
	}
}

func (c checker) required(name, value string, limit int) {
	if value == "" {
		c.Fault(name, "is required")
		return
	}
	c.text(name, value, limit)
}

// words is text that may span several lines.
func (c checker) words(name, value string, limit int) {
	c.text(name, strings.NewReplacer("\n", " ", "\r", " ", "\t", " ").Replace(value), limit)
}

func number[T int | int64](c checker, name string, n, least, most T) {
	if n < least || n > most {
		c.Fault(name, fmt.Sprintf("must be %d to %d, not %d", least, most, n))
	}
}

// duration checks an optional duration.
func (c checker) duration(name string, d Duration, least, most time.Duration) {
	if d == "" {
		return
	}
	v, err := time.ParseDuration(string(d))
	switch {
	case err != nil:
		c.Fault(name, `must be a duration such as "250ms", "1.5s" or "1h", not `+quote(string(d)))
	case v < least || v > most:
		c.Fault(name, fmt.Sprintf("must be %s to %s, not %s", brief(least), brief(most), quote(string(d))))
	}
}

// brief formats a duration without trailing units that are zero: 24h rather than 24h0m0s.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// oneOf checks an optional value.
func oneOf[T ~string](c checker, name string, value T, among ...T) {
	if value != "" && !slices.Contains(among, value) {
		c.Fault(name, "must be "+either(among)+", not "+quote(string(value)))
	}
}

func requiredOf[T ~string](c checker, name string, value T, among ...T) {
	if value == "" {
		c.Fault(name, "is required: "+either(among))
		return
	}
	oneOf(c, name, value, among...)
}

func either[T ~string](among []T) string {
	parts := make([]string, len(among))
	for i, v := range among {
		parts[i] = string(v)
	}
	last := len(parts) - 1
	if last == 0 {
		return parts[0]
	}
	return strings.Join(parts[:last], ", ") + " or " + parts[last]
}

// list checks the elements of a list, which must be distinct. The error of check completes a sentence that begins with the path of the
// element.
func list[T ~string](c checker, name string, values []T, limit int, check func(string) error) {
	if len(values) > limit {
		c.Fault(name, fmt.Sprintf("must have at most %d elements, not %d", limit, len(values)))
		return
	}
	first := make(map[T]int, len(values))
	for i, v := range values {
		at := c.item(name, i)
		if err := check(string(v)); err != nil {
			at.Check("", err)
		} else if before, twice := first[v]; twice {
			at.Fault("", fmt.Sprintf("must differ from %s[%d]: %s", name, before, quote(string(v))))
		} else {
			first[v] = i
		}
	}
}

// fields checks header fields by name. Names that differ only in case are equal.
func fields(c checker, name string, values map[string]string, limit int, check func(field, value string) error) {
	if len(values) > limit {
		c.Fault(name, fmt.Sprintf("must have at most %d members, not %d", limit, len(values)))
		return
	}
	seen := make(map[string]string, len(values))
	for _, field := range slices.Sorted(maps.Keys(values)) {
		lower := strings.ToLower(field)
		if err := checkFieldName(field); err != nil {
			c.Fault(name, "has a member that "+err.Error())
		} else if before, twice := seen[lower]; twice {
			c.in(name).Fault(field, "is the same header field as "+before)
		} else if seen[lower] = field; check != nil {
			c.in(name).Check(field, check(field, values[field]))
		}
	}
}

func quote(value string) string { return problem.Quote(value) }

func refused(want, value string) error { return problem.Refused(want, value) }
