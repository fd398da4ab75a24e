package events

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
)

// lastEventID is the header field in which a client names the last event it saw.
const lastEventID = "Last-Event-ID"

// maxQueryValues bounds the values of one parameter.
const maxQueryValues = 100

// request is what a client asks for.
type request struct {
	// after is the last event the client saw, the zero position if it starts anew.
	after position
	want  filter
}

// filter selects the events a client gets. The zero value passes all of them.
type filter struct {
	types []mm5.EventType
	apps  []string
}

func (f *filter) passes(e *event) bool {
	if e.name == mm5.EventReset {
		return true
	}
	return (len(f.types) == 0 || slices.Contains(f.types, e.name)) && (len(f.apps) == 0 || slices.Contains(f.apps, e.app))
}

// parseRequest parses a request. It refuses unknown parameters and malformed values, and accepts both repeated and
// comma-separated values of types and app_instance_id. A Last-Event-ID header takes precedence over the parameter: a client that
// followed a link with the parameter sends the last event it saw since then in the header.
func parseRequest(r *http.Request) (request, error) {
	var req request
	var faults problem.InvalidParams
	asked := ""
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			faults.Add(httpx.ParamName(rawName), "is not a well-formed parameter name")
			continue
		}
		switch name {
		case "types":
			for _, v := range values(name, rawValue, len(req.want.types), &faults) {
				if !slices.Contains(filterable, mm5.EventType(v)) {
					faults.Add(name, "must be of "+typeNames())
					break
				}
				req.want.types = append(req.want.types, mm5.EventType(v))
			}
		case "app_instance_id":
			for _, v := range values(name, rawValue, len(req.want.apps), &faults) {
				req.want.apps = append(req.want.apps, identity.CanonicalID(v))
			}
		case "last_event_id":
			v, err := url.QueryUnescape(rawValue)
			if err != nil || v == "" || asked != "" && asked != v {
				faults.Add(name, "must be given once, with a value")
				continue
			}
			asked = v
		default:
			faults.Add(httpx.ParamName(name), "is not a parameter of this resource")
		}
	}
	where := "last_event_id"
	if seen := r.Header.Values(lastEventID); len(seen) > 1 {
		faults.Add(lastEventID, "must be given once")
	} else if len(seen) == 1 && seen[0] != "" {
		asked, where = seen[0], lastEventID
	}
	if asked != "" {
		var err error
		if req.after, err = parsePosition(asked); err != nil {
			faults.Add(where, err.Error())
		}
	}
	return req, errs.Params(faults)
}

// values splits raw into values of a parameter that already has some.
func values(name, raw string, have int, faults *problem.InvalidParams) []string {
	var list []string
	for part := range strings.SplitSeq(raw, ",") {
		value, err := url.QueryUnescape(part)
		switch {
		case err != nil || value == "":
			faults.Add(name, "must have a well-formed value")
			return nil
		case have+len(list) == maxQueryValues:
			faults.Add(name, "has more than 100 values")
			return nil
		}
		list = append(list, value)
	}
	return list
}

func typeNames() string {
	names := make([]string, 0, len(filterable))
	for _, t := range filterable {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}
