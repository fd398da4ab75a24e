package dns

import (
	"fmt"
	"slices"
	"strings"

	"github.com/openmep/mep/api/problem"
)

// maxFaults is the number of faults at which Check stops looking at the values of a record.
const maxFaults = 50

// Check adds to faults everything that is wrong with r. It does not know whether the view is configured.
func (r *Record) Check(faults *problem.InvalidParams) {
	name, named := CanonicalName(r.Name, true)
	switch {
	case r.Name == "":
		fault(faults, "name", "is required")
	case !named:
		fault(faults, "name", `must be a domain name, whose first label may be "*", not `+quote(r.Name))
	}
	rrtype := r.Type
	switch {
	case rrtype == "":
		fault(faults, "type", "is required: "+strings.Join(Types, ", "))
	case !ValidType(rrtype):
		fault(faults, "type", "must be one of "+strings.Join(Types, ", ")+", not "+quote(r.Type))
		rrtype = ""
	}
	checkClass(r.Class, faults)
	if r.TTL < 1 || r.TTL > MaxTTL {
		fault(faults, "ttl", fmt.Sprintf("must be 1 to %d seconds, not %d", MaxTTL, r.TTL))
	}
	zone, ok := CanonicalZone(r.Zone)
	switch {
	case !ok:
		fault(faults, "zone", `must be a domain name or ".", not `+quote(r.Zone))
	case named && !Within(name, zone):
		fault(faults, "zone", "must be "+name+` or a name that it is below, or ".", not `+quote(r.Zone))
	}
	if r.View != "" && !ValidView(r.View) {
		fault(faults, "view", "must be the name of a view, not "+quote(r.View))
	}
	r.checkRData(rrtype, name, faults)
}

// checkClass refuses all classes but IN. EdgeGallery stored others, but its server answered them from the same addresses, and nobody
// queries them.
func checkClass(class string, faults *problem.InvalidParams) {
	switch class {
	case "", ClassIN:
	case "CS", "CH", "HS":
		fault(faults, "class", "must be IN: records of other classes, such as "+class+", are not served")
	default:
		fault(faults, "class", "must be IN, not "+quote(class))
	}
}

// checkRData checks the values as far as the type is known. rrtype and name are empty if they are unknown.
func (r *Record) checkRData(rrtype, name string, faults *problem.InvalidParams) {
	switch n := len(r.RData); {
	case n == 0:
		fault(faults, "rData", "must have at least one value")
		return
	case n > MaxRData:
		fault(faults, "rData", fmt.Sprintf("must have at most %d values, not %d", MaxRData, n))
		return
	case n > 1 && rrtype == TypeCNAME:
		fault(faults, "rData", fmt.Sprintf("must have one value as the type is CNAME, not %d", n))
	}
	if rrtype == "" {
		return
	}
	first := make(map[string]int, len(r.RData))
	total := 0
	for i, s := range r.RData {
		if len(*faults) >= maxFaults {
			return
		}
		at := fmt.Sprintf("rData[%d]", i)
		value, size, err := canonicalValue(rrtype, s)
		if err != nil {
			fault(faults, at, err.Error())
			continue
		}
		if before, twice := first[value]; twice {
			fault(faults, at, fmt.Sprintf("must differ from rData[%d]: %s", before, quote(s)))
			continue
		}
		if rrtype == TypeCNAME && value == name {
			fault(faults, at, "must be another name than that of the record")
		}
		first[value] = i
		total += recordHead + size
	}
	if total > MaxSize {
		fault(faults, "rData", fmt.Sprintf("has values that take %d octets of a DNS message, more than %d", total, MaxSize))
	}
}

// recordHead is how many octets a record takes in a message besides its value, with its name compressed (RFC 1035 4.1.3).
const recordHead = 12

// fault adds a fault, unless one of the same member was recorded already.
func fault(faults *problem.InvalidParams, name, reason string) {
	for _, f := range *faults {
		if f.Name == name || strings.HasPrefix(f.Name, name+"[") {
			return
		}
	}
	faults.Add(name, reason)
}

// Normalise puts r, which must have passed Check, into the normal form in which records are stored and returned: names in lower case
// with a trailing dot, addresses in canonical notation, no class, "." for no zone, and no NotServed.
func (r *Record) Normalise() {
	r.Name, _ = CanonicalName(r.Name, true)
	r.Class, r.NotServed = "", ""
	r.Zone, _ = CanonicalZone(r.Zone)
	values := make([]string, len(r.RData))
	for i, s := range r.RData {
		values[i], _, _ = canonicalValue(r.Type, s)
	}
	r.RData = values
}

// ValidType reports whether s is one of Types.
func ValidType(s string) bool { return slices.Contains(Types, s) }
