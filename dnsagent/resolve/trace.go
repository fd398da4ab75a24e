package resolve

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	api "github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/dnsagent/listen"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
	"github.com/openmep/mep/kit/errs"
)

// Trace answers a question as a client would get it answered over TCP, and explains the answer. It is not counted as a client's question.
func (r *Resolver) Trace(ctx context.Context, req api.TraceRequest) (*api.Trace, error) {
	client, err := netip.ParseAddr(req.Client)
	if err != nil {
		return nil, errs.New(errs.Invalid, "client: %q is not an address", req.Client)
	}
	rrtype, ok := dns.StringToType[strings.ToUpper(req.Type)]
	if !ok {
		if _, err := fmt.Sscanf(strings.ToUpper(req.Type), "TYPE%d", &rrtype); err != nil {
			return nil, errs.New(errs.Invalid, "type: %q is not a type of record", req.Type)
		}
	}
	shown := dns.TypeToString[rrtype]
	if shown == "" || rrtype == dns.TypeReserved {
		shown = fmt.Sprintf("TYPE%d", rrtype)
	}
	name, err := wire.ParseName(req.Name)
	if err != nil {
		return nil, errs.New(errs.Invalid, "name: %s", err)
	}
	var m dns.Msg
	m.SetQuestion(name.String(), rrtype)
	m.SetEdns0(dns.DefaultMsgSize, false)
	query, err := m.Pack()
	if err != nil {
		return nil, errs.New(errs.Invalid, "name: %s", err)
	}
	x := r.begin(&listen.Peer{AddrPort: netip.AddrPortFrom(client.Unmap(), 1), Transport: listen.TCP})
	defer r.pool.Put(x)
	resp, _ := x.run(ctx, nil, query)
	var answer dns.Msg
	if err := answer.Unpack(resp); err != nil {
		return nil, fmt.Errorf("the server's own answer: %w", err)
	}
	t := &api.Trace{
		Name: name.String(), Type: shown, Client: client.String(), Source: api.Source(sourceNames[x.source]),
		RCode: rcodeName(answer.Rcode), Authoritative: answer.Authoritative, Steps: []string{}, Records: []api.TraceRecord{},
	}
	if x.view != table.Everyone {
		t.View = x.table.Views[x.view-1]
	}
	x.explain(t, name, rrtype, &answer)
	return t, nil
}

// explain adds to t how an answer came about.
func (x *exchange) explain(t *api.Trace, name wire.Name, rrtype uint16, answer *dns.Msg) {
	say := func(format string, args ...any) { t.Steps = append(t.Steps, fmt.Sprintf(format, args...)) }
	if t.View != "" {
		say("the client is in the view %s", t.View)
	}
	defer func() {
		for _, o := range answer.IsEdns0().Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				say("%s", strings.TrimSuffix(dns.ExtendedErrorCodeToString[e.InfoCode]+": "+e.ExtraText, ": "))
			}
		}
	}()
	switch {
	case !within(x.policy.Query, x.peer.AddrPort.Addr()):
		say("the client is in none of the networks of dns.allowQuery")
		return
	case x.table == nil:
		return
	}
	names := x.chain(say, t, name, rrtype, answer)
	if x.source != sourceTable {
		x.explainForwarding(say, t, name)
	} else if x.failure != nil {
		say("forwarded, not answered: %s", x.failure)
	}
	for _, rr := range slices.Concat(answer.Answer, answer.Ns) {
		t.Records = append(t.Records, api.TraceRecord{Record: rr.String(), Origin: x.originOf(rr, names, string(t.Source))})
	}
}

// explainForwarding explains what became of a question that the table does not answer.
func (x *exchange) explainForwarding(say func(string, ...any), t *api.Trace, name wire.Name) {
	switch {
	case x.failure != nil:
		say("forwarded, not answered: %s", x.failure)
	case x.stale:
		say("forwarded, no forwarder has an answer: given is the last one, which is past its time")
	case x.source != sourceNone && x.resp.RCode == dns.RcodeServerFailure:
		say("forwarded, SERVFAIL is what a forwarder said, from the %s", t.Source)
	case x.source != sourceNone:
		say("forwarded, answered from the %s", t.Source)
	case !x.recursive:
		say("the client is in none of the networks of dns.allowRecursion")
	case !x.r.forward.Handles(name):
		say("no forwarder is configured for it")
	}
}

// chain follows the names that lead to the answer, and returns those that were found in the table.
func (x *exchange) chain(say func(string, ...any), t *api.Trace, name wire.Name, rrtype uint16, answer *dns.Msg) map[wire.Name]wire.Name {
	names := make(map[wire.Name]wire.Name)
	var seen []wire.Name
	for range maxChain + len(answer.Answer) {
		if slices.Contains(seen, name) {
			say("the chain of aliases is a circle")
			return names
		}
		seen = append(seen, name)
		a := x.table.Lookup(name, rrtype, x.view)
		if zone := x.table.ZoneOf(name); zone != nil {
			say("%s is in the platform's zone %s", name, zone.Name)
			if t.Zone == "" {
				t.Zone = zone.Name.String()
			}
		} else if a.Kind != table.NotLocal {
			say("%s is outside the platform's zones, rules or records override it", name)
		}
		from := name
		if a.Wildcard {
			from, _ = a.Above.Wildcard()
			t.Wildcard = from.String()
			say("the wildcard %s covers it", from)
		}
		for _, shown := range x.table.At(from) {
			if shown.Unanswered != "" && (shown.View == table.Everyone || shown.View == x.view) {
				say("the %s of %s is not answered: %s", dns.TypeToString[shown.Type], shown.Origin, shown.Unanswered)
			}
		}
		names[name] = from
		switch a.Kind {
		case table.NotLocal:
			say("%s is not the platform's", name)
			delete(names, name)
			target, ok := aliasIn(answer, name)
			if !ok || rrtype == dns.TypeCNAME {
				return names
			}
			say("a forwarder says that it is an alias of %s", target)
			name = target
			continue
		case table.NXDomain:
			say("%s does not exist", name)
			return names
		case table.NoData:
			say("%s has no record of the type %s", name, t.Type)
			return names
		}
		if a.Set.Type != dns.TypeCNAME || rrtype == dns.TypeCNAME {
			say("%s has %d of the type %s", name, a.Set.Count, t.Type)
			return names
		}
		say("%s is an alias of %s", name, a.Set.Target())
		name = a.Set.Target()
	}
	say("the chain of aliases is longer than %d", maxChain)
	return names
}

// aliasIn returns what a name is an alias of in an answer.
func aliasIn(answer *dns.Msg, name wire.Name) (target wire.Name, ok bool) {
	for _, rr := range answer.Answer {
		cname, isAlias := rr.(*dns.CNAME)
		if !isAlias {
			continue
		}
		if owner, err := wire.ParseName(cname.Hdr.Name); err != nil || owner != name {
			continue
		}
		target, err := wire.ParseName(cname.Target)
		return target, err == nil
	}
	return "", false
}

// originOf returns where a record of an answer comes from.
func (x *exchange) originOf(rr dns.RR, names map[wire.Name]wire.Name, elsewhere string) string {
	owner, err := wire.ParseName(rr.Header().Name)
	if err != nil {
		return ""
	}
	from, local := names[owner]
	if rr.Header().Rrtype == dns.TypeSOA && (local || x.table.ZoneOf(owner) != nil) {
		return "zone"
	}
	if !local {
		if elsewhere == string(api.SourceTable) { // at the end of a chain that leads out of the table
			return string(api.SourceUpstream)
		}
		return elsewhere
	}
	buf := make([]byte, dns.Len(rr)+wire.MaxName)
	end, err := dns.PackRR(rr, buf, 0, nil, false) // PackRR sets Rdlength
	if err != nil {
		return ""
	}
	data := string(buf[end-int(rr.Header().Rdlength) : end])
	for _, shown := range x.table.At(from) {
		if shown.Type == rr.Header().Rrtype && shown.Data == data && (shown.View == table.Everyone || shown.View == x.view) {
			if shown.ID == "" || shown.Derived {
				return shown.Origin
			}
			return shown.Origin + " " + shown.ID
		}
	}
	return elsewhere
}
