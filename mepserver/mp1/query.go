package mp1

import (
	"net/url"
	"strings"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/mepserver/registry"
)

// maxQueryValues bounds the number of values of one parameter.
const maxQueryValues = 100

// parseQuery parses the query of a discovery (MEC 011 8.2.3.3.1). It rejects unknown names and malformed values.
// Repeated and comma-separated values both work; a comma within a value is written %2C.
func parseQuery(raw string) (registry.Query, error) {
	var q registry.Query
	if raw == "" {
		return q, nil
	}
	var faults problem.InvalidParams
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		switch {
		case err != nil:
			faults.Add(httpx.ParamName(rawName), "is not a well-formed parameter name")
			continue
		case name == "":
			faults.Add("query", "has a parameter without a name")
			continue
		}
		setParameter(&q, name, rawValue, &faults)
	}
	selectors := 0
	for _, given := range []bool{len(q.InstanceIDs) > 0, len(q.Names) > 0, q.CategoryID != ""} {
		if given {
			selectors++
		}
	}
	if selectors > 1 {
		faults.Add("query", "must have at most one of ser_instance_id, ser_name and ser_category_id")
	}
	return q, errs.Params(faults)
}

func setParameter(q *registry.Query, name, rawValue string, faults *problem.InvalidParams) {
	switch name {
	case "ser_instance_id":
		q.InstanceIDs = appendValues(q.InstanceIDs, name, rawValue, faults)
		return
	case "ser_name":
		q.Names = appendValues(q.Names, name, rawValue, faults)
		return
	}
	value, err := url.QueryUnescape(rawValue)
	if err != nil || value == "" {
		faults.Add(httpx.ParamName(name), "must have a well-formed value")
		return
	}
	switch name {
	case "ser_category_id":
		if q.CategoryID != "" && q.CategoryID != value {
			faults.Add(name, "must be given once")
		}
		q.CategoryID = value
	case "scope_of_locality":
		scope := mp1.LocalityType(value)
		switch {
		case !scope.Valid():
			faults.Add(name, "must be one of "+mp1.LocalityValues())
		case q.Scope != "" && q.Scope != scope:
			faults.Add(name, "must be given once")
		}
		q.Scope = scope
	case "consumed_local_only":
		q.ConsumedLocalOnly = boolean(q.ConsumedLocalOnly, name, value, faults)
	case "is_local":
		q.IsLocal = boolean(q.IsLocal, name, value, faults)
	default:
		faults.Add(httpx.ParamName(name), "is not a parameter of this resource")
	}
}

func appendValues(list []string, name, raw string, faults *problem.InvalidParams) []string {
	for part := range strings.SplitSeq(raw, ",") {
		value, err := url.QueryUnescape(part)
		if err != nil || value == "" {
			faults.Add(name, "must have a well-formed value")
			return list
		}
		if len(list) == maxQueryValues {
			faults.Add(name, "has more than 100 values")
			return list
		}
		list = append(list, value)
	}
	return list
}

func boolean(before *bool, name, value string, faults *problem.InvalidParams) *bool {
	b := value == "true"
	switch {
	case !b && value != "false":
		faults.Add(name, "must be true or false")
	case before != nil && *before != b:
		faults.Add(name, "must be given once")
	}
	return &b
}
