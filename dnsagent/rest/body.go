package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/query"
)

// adopt gives rec the zone and view of the query if rec names none, and adds a fault if rec names others.
func (p params) adopt(rec *dns.Record, faults *problem.InvalidParams) {
	if zone := p.zone("zone"); zone != "" {
		if own, _ := dns.CanonicalZone(rec.Zone); rec.Zone != "" && own != zone {
			faults.Add("zone", "must be that of the query, "+zone+", or absent")
		}
		rec.Zone = zone
	}
	if view := p.view(); view != nil {
		if rec.View != "" && rec.View != *view {
			faults.Add("view", "must be that of the query, "+query.Quote(*view)+", or absent")
		}
		rec.View = *view
	}
}

// record decodes the request's body, one record.
func (a *API) record(c *gin.Context, p params) (dns.Record, error) {
	var rec dns.Record
	err := httpx.BodyFunc(c, &rec, func(faults *problem.InvalidParams) {
		p.adopt(&rec, faults)
		a.Book.Check(&rec, faults)
	})
	return rec, err
}

// records decodes the request's body: one record, or an array of 1 to dns.MaxBatch records.
func (a *API) records(c *gin.Context, p params) ([]dns.Record, error) {
	body, err := httpx.ReadBody(c)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")) {
		replay(c, body)
		rec, err := a.record(c, p)
		return []dns.Record{rec}, err
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(body, &elements); err != nil {
		return nil, errs.New(errs.Invalid, "the body is not acceptable JSON: %v", err)
	}
	if n := len(elements); n < 1 || n > dns.MaxBatch {
		return nil, errs.New(errs.Invalid, "the array must have 1 to %d records, not %d", dns.MaxBatch, n)
	}
	list := make([]dns.Record, len(elements))
	var faults problem.InvalidParams
	for i, element := range elements {
		// Decode each element as if it were the body.
		replay(c, element)
		if list[i], err = a.record(c, p); err == nil {
			continue
		}
		e, ok := errors.AsType[*errs.Error](err)
		if !ok || e.Kind != errs.Invalid {
			return nil, err
		}
		at := fmt.Sprintf("[%d]", i)
		if len(e.Params) == 0 {
			faults.Add(at, "is wrong: "+e.Detail)
		}
		for _, f := range e.Params {
			faults.Add(at+"."+f.Name, f.Reason)
		}
		if len(faults) >= maxFaults {
			break
		}
	}
	return list, errs.Params(faults)
}

// maxFaults is roughly the maximum number of faults reported for the records of one request.
const maxFaults = 50

// replay makes body the request's body.
func replay(c *gin.Context, body []byte) {
	c.Request.Body, c.Request.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
}
