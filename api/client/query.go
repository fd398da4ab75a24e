package client

import (
	"net/url"
	"strconv"

	"github.com/openmep/mep/api/mp1"
)

// Query narrows a list of services (MEC 011 8.2.3.3.1). Fields are combined by AND, the elements of one field by OR; the zero
// Query matches everything. Only one of InstanceIDs, Names and CategoryID may be given.
type Query struct {
	// InstanceIDs are values of serInstanceId.
	InstanceIDs []string
	// Names are values of serName.
	Names []string
	// CategoryID is the id of a serCategory.
	CategoryID string
	// ScopeOfLocality is a scope of locality.
	ScopeOfLocality mp1.LocalityType
	// ConsumedLocalOnly selects services by whether only local consumers may use them.
	ConsumedLocalOnly *bool
	// IsLocal selects services by whether they are local to the caller.
	IsLocal *bool
}

func (q Query) values() url.Values {
	v := url.Values{}
	for _, id := range q.InstanceIDs {
		v.Add("ser_instance_id", id)
	}
	for _, name := range q.Names {
		v.Add("ser_name", name)
	}
	if q.CategoryID != "" {
		v.Set("ser_category_id", q.CategoryID)
	}
	if q.ScopeOfLocality != "" {
		v.Set("scope_of_locality", string(q.ScopeOfLocality))
	}
	if q.ConsumedLocalOnly != nil {
		v.Set("consumed_local_only", strconv.FormatBool(*q.ConsumedLocalOnly))
	}
	if q.IsLocal != nil {
		v.Set("is_local", strconv.FormatBool(*q.IsLocal))
	}
	return v
}
