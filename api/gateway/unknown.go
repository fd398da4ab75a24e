package gateway

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/openmep/mep/api/problem"
)

// unknown records a fault for each member that the type of v does not have.
func unknown(c checker, v any, members Unknown) {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if c.Full() {
			return
		}
		reason := "is not a member here"
		if meant := closest(name, reflect.TypeOf(v)); meant != "" {
			reason += "; did you mean " + meant + "?"
		}
		if name == "" || len(name) > problem.MaxQuoted || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			name = quote(name)
		}
		c.Fault(name, reason)
	}
}

// closest returns the struct member closest to a name; "" if none is close.
func closest(name string, t reflect.Type) string {
	if len(name) > problem.MaxQuoted {
		return ""
	}
	best, at := "", min(3, 1+len(name)/3)
	for field := range t.Fields() {
		member, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if member == "" || member == "-" {
			continue
		}
		if d := distance(strings.ToLower(name), strings.ToLower(member)); d < at || d == at && best == "" {
			best, at = member, d
		}
	}
	return best
}

// distance returns the number of bytes to insert, delete or replace to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
