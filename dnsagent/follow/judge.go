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

// judge corrects what is said to be served by what the table answers, where records are in each other's way.
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
		for _, why := range lost { // there may be thousands, for one or two reasons
			f.log.Warn("records are not answered", "origin", origin, "records", len(lost), "reason", why)
			break
		}
		if app, ok := strings.CutPrefix(origin, rulesOf("")); ok && f.made[app] != nil {
			changed[app] = f.made[app].without(lost)
		}
	}
}

// rulesOf is the origin of the rules of an app instance.
func rulesOf(app string) string { return sourceRules + " " + app }

// without is s without the rules that are not answered, by their IDs with why.
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

// recordOrigin is the origin of a record of the management.
func recordOrigin(rec *dns.Record) string {
	id := strings.TrimPrefix(state.DNSRecordKey(rec.Name, rec.Type, rec.View), state.PrefixDNSRecords)
	return sourceRecord + " " + strings.TrimSuffix(id, "/")
}

// Displaced says, in sentences, which records would not be answered any more, or not at all, if those given were there, each in the
// place of the one of its name, type and view. They are in their normal form. Before the first table there are none.
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
			continue // which no record is that was checked
		}
		next[recordOrigin(&recs[i])] = list
	}
	return now.Displaced(next)
}

// Unanswered says why a record of the management, in its normal form, is not answered; nothing when it is, or when the table does not
// have it yet.
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
