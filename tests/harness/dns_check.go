package harness

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// check verifies the properties that every response of the server must have, regardless of the query.
func (r *Reply) check(query *dns.Msg, network string) error {
	for _, check := range []func(*dns.Msg, string) error{r.checkHeader, r.checkSize, r.checkSections, r.checkNothing} {
		if err := check(query, network); err != nil {
			return err
		}
	}
	return nil
}

// checkHeader compares header, question and EDNS with those of the query.
func (r *Reply) checkHeader(query *dns.Msg, network string) error {
	switch {
	case !r.Response:
		return errors.New("it is no response")
	case r.Id != query.Id:
		return fmt.Errorf("the id is %d, not %d", r.Id, query.Id)
	case r.Opcode != query.Opcode:
		return fmt.Errorf("the opcode is %d", r.Opcode)
	case r.RecursionDesired != query.RecursionDesired:
		return errors.New("RD is not that of the query")
	case r.Raw[3]&0x40 != 0:
		return errors.New("the bit that must be zero is set")
	case r.Authoritative && r.AuthenticatedData:
		return errors.New("the server's own answer claims to be authenticated")
	case r.Truncated && network != "udp":
		return errors.New("it is truncated, over " + network)
	}
	wanted := query.Question
	if query.Opcode != dns.OpcodeQuery || r.Rcode == dns.RcodeFormatError {
		return nil // the server need not have parsed any more of it
	}
	// Responses echo the case of the query name, which lets clients detect forged ones.
	if !slices.Equal(r.Question, wanted) {
		return fmt.Errorf("the question is %v, not %v", r.Question, wanted)
	}
	if (query.IsEdns0() != nil) != (r.IsEdns0() != nil) {
		return errors.New("EDNS is in one of query and response only (RFC 6891 6.1.1)")
	}
	if opt := r.IsEdns0(); opt != nil && opt.Do() != query.IsEdns0().Do() {
		return errors.New("DO is not that of the query (RFC 3225 3)")
	}
	return nil
}

// checkSize checks that the response fits, and that no data follows its records.
func (r *Reply) checkSize(query *dns.Msg, network string) error {
	most := dns.MaxMsgSize
	if network == "udp" {
		most = dns.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			most = max(most, int(opt.UDPSize()))
		}
	}
	if len(r.Raw) > most {
		return fmt.Errorf("it has %d octets, more than the %d there is room for", len(r.Raw), most)
	}
	off := 12
	for range r.Question {
		_, end, err := dns.UnpackDomainName(r.Raw, off)
		if err != nil {
			return err
		}
		off = end + 4
	}
	for range len(r.Answer) + len(r.Ns) + len(r.Extra) {
		_, end, err := dns.UnpackRR(r.Raw, off)
		if err != nil {
			return err
		}
		off = end
	}
	if off != len(r.Raw) {
		return fmt.Errorf("the records end at octet %d of %d", off, len(r.Raw))
	}
	return nil
}

// checkSections checks that the records form RRsets, and that those of the answer section form a chain from the question.
func (r *Reply) checkSections(query *dns.Msg, _ string) error {
	if r.Truncated && len(r.Answer)+len(r.Ns) > 0 {
		return errors.New("a truncated response has records that may be parts of RRsets")
	}
	for _, section := range [][]dns.RR{r.Answer, r.Ns} {
		seen := map[string]bool{}
		ttls := map[string]uint32{}
		for _, record := range section {
			h := record.Header()
			if h.Class != dns.ClassINET || h.Ttl > 1<<31-1 {
				return fmt.Errorf("%v is of another class, or has no TTL", record)
			}
			text := strings.ToLower(record.String())
			if seen[text] {
				return fmt.Errorf("%v is there twice", record)
			}
			seen[text] = true
			set := strings.ToLower(h.Name) + " " + dns.TypeToString[h.Rrtype]
			if ttl, ok := ttls[set]; ok && ttl != h.Ttl && h.Rrtype != dns.TypeRRSIG {
				return fmt.Errorf("the TTLs of %s differ (RFC 2181 5.2)", set)
			}
			ttls[set] = h.Ttl
		}
	}
	for _, record := range r.Extra {
		if record.Header().Rrtype != dns.TypeOPT {
			return fmt.Errorf("%v is in the additional section of a server that is brief", record)
		}
	}
	if len(query.Question) != 1 {
		return nil
	}
	_, err := r.chain(query)
	return err
}

// chain follows the aliases of the answer section and returns the final name.
func (r *Reply) chain(query *dns.Msg) (name string, err error) {
	name = query.Question[0].Name
	first := true
	for _, record := range r.Answer {
		h := record.Header()
		if h.Rrtype == dns.TypeDNAME || h.Rrtype == dns.TypeRRSIG {
			continue
		}
		// The owner name of the queried name has the case of the query; names further down the chain are those of the records.
		if first && h.Name != name || !strings.EqualFold(h.Name, name) {
			return name, fmt.Errorf("%v does not belong to %s", record, name)
		}
		if alias, ok := record.(*dns.CNAME); ok && query.Question[0].Qtype != dns.TypeCNAME {
			name, first = alias.Target, false
		}
	}
	return name, nil
}

// checkNothing checks that an authoritative negative answer has an SOA with its TTL (RFC 2308 2).
func (r *Reply) checkNothing(query *dns.Msg, _ string) error {
	if len(query.Question) != 1 || r.Truncated || !r.Authoritative {
		return nil
	}
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return fmt.Errorf("an authoritative %s", r.RCode())
	}
	name, err := r.chain(query)
	if err != nil {
		return err
	}
	found := slices.ContainsFunc(r.Answer, func(record dns.RR) bool {
		t, asked := record.Header().Rrtype, query.Question[0].Qtype
		return t == asked || asked == dns.TypeANY
	})
	switch {
	case found && r.Rcode == dns.RcodeNameError:
		return errors.New("NXDOMAIN with records")
	case found && len(r.Ns) > 0:
		return errors.New("an answer with an authority section of a server that is brief")
	case found:
		return nil
	case len(r.Ns) == 0 && len(r.Answer) > 0:
		return nil // the alias chain leads elsewhere or has no end
	case len(r.Ns) != 1:
		return errors.New("there is nothing, and no SOA says so")
	}
	soa, ok := r.Ns[0].(*dns.SOA)
	if !ok || !dns.IsSubDomain(soa.Hdr.Name, name) {
		return fmt.Errorf("the SOA %v is not that of %s", r.Ns[0], name)
	}
	if soa.Hdr.Ttl > soa.Minttl {
		return fmt.Errorf("the SOA %v may be kept longer than it says", soa)
	}
	return nil
}
