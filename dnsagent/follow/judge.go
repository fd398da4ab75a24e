package follow

import (
	"maps"
	"strings"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// current is a table with the configuration it was made with.
type current struct {
	*table.Table
	cfg *Config
}

// judge removes from the served rules those that the table does not answer because records conflict.
func (f *Feed) judge(w *table.Writer, changed map[string]*Served) {
	for app, s := range changed {
		if s == nil {
			delete(f.made, app)
		} else {
			f.made[app] = s
		}
		changed[app] = s.without(w.LostOf(rulesOf(app)))
	}
	for _, origin := range w.Changed() {
		lost := w.LostOf(origin)
		for _, why := range lost { // thousands of records may share one or two reasons
			f.log.Warn("records are not answered", "origin", origin, "records", len(lost), "reason", why)
			break
		}
		if app, ok := strings.CutPrefix(origin, rulesOf("")); ok && f.made[app] != nil {
			changed[app] = f.made[app].without(lost)
		}
	}
}

// rulesOf returns the origin of the rules of an app instance.
func rulesOf(app string) string { return sourceRules + " " + app }

// without returns s with the rules in lost moved to Failed. lost maps rule IDs to reasons.
func (s *Served) without(lost map[string]string) *Served {
	if s == nil || len(lost) == 0 {
		return s
	}
	left := &Served{Generation: s.Generation, Failed: make(map[string]string, len(s.Failed)+len(lost))}
	maps.Copy(left.Failed, s.Failed)
	for _, id := range s.Applied {
		if why, ok := lost[id]; ok {
			left.Failed[id] = why
		} else {
			left.Applied = append(left.Applied, id)
		}
	}
	return left
}

// recordOrigin returns the origin of a record of the management API.
func recordOrigin(rec *dns.Record) string {
	id := strings.TrimPrefix(state.DNSRecordKey(rec.Name, rec.Type, rec.View), state.PrefixDNSRecords)
	return sourceRecord + " " + strings.TrimSuffix(id, "/")
}

// Displaced returns a sentence for each record that would not, or no longer, be answered if recs, in normal form, took the place of
// the records of their names, types and views. It returns none before the first table.
func (f *Feed) Displaced(recs []dns.Record) []string {
	now := f.current.Load()
	if now == nil {
		return nil
	}
	next := make(map[string][]table.Record, len(recs))
	for i := range recs {
		view, ok := now.cfg.viewNamed(recs[i].View)
		if !ok {
			continue
		}
		list, err := records.Wire(&recs[i], view)
		if err != nil {
			continue // cannot happen to a record that was checked
		}
		next[recordOrigin(&recs[i])] = list
	}
	return now.Displaced(next)
}

// Unanswered returns why a record of the management API, in normal form, is not answered, or "" if it is, or is not in the table yet.
func (f *Feed) Unanswered(rec *dns.Record) string {
	now := f.current.Load()
	if now == nil {
		return ""
	}
	if _, ok := now.cfg.viewNamed(rec.View); !ok {
		return "the view " + rec.View + " is not configured: nobody sees the record"
	}
	name, err := wire.ParseName(rec.Name)
	if err != nil {
		return ""
	}
	return now.Unanswered(recordOrigin(rec), name)
}
