package forward

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxChain is the maximum number of aliases that an answer may go through.
	maxChain = 16
	// maxProofs is how many signed records may prove that something does not exist: three names for each zone (RFC 5155 7.2).
	maxProofs = 32
)

// errUnusable is the error for responses that are no answer: another upstream may know more.
var errUnusable = errors.New("the response is no answer")

// cleaned is a response reduced to what follows from the question.
type cleaned struct {
	msg *dns.Msg
	ttl time.Duration // 0 when it must not be kept
}

// sanitiser picks from a response what follows from the question. Anything else in it may be an attempt to plant false data (RFC 5452 6,
// RFC 2181 5.4.1).
type sanitiser struct {
	question *Question
	response *response
	names    []string // the name that was asked for and those it is an alias of, in lower case
	answer   []dns.RR
	ns       []dns.RR
	negative *dns.SOA
}

// sanitise returns what is left of a response with the code NOERROR, NXDOMAIN or YXDOMAIN, with TTLs within their bounds. The error is
// errUnusable if the response answers nothing.
func sanitise(q *Question, resp *response, longest, longestNegative time.Duration) (*cleaned, error) {
	s := &sanitiser{question: q, response: resp, names: []string{q.Name.String()}}
	s.restoreCase()
	found := s.followChain()
	rcode := resp.msg.Rcode
	if found && rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("%w: it has records with the code %s", errUnusable, dns.RcodeToString[rcode])
	}
	if !found {
		s.findSOA()
		if reason := s.nothing(); reason != "" && s.negative == nil && rcode == dns.RcodeSuccess {
			return nil, fmt.Errorf("%w: %s", errUnusable, reason)
		}
	}
	if q.DO {
		s.keepProofs()
	}
	msg := &dns.Msg{
		MsgHdr: dns.MsgHdr{
			Response: true, Rcode: rcode, AuthenticatedData: resp.msg.AuthenticatedData,
		},
		Compress: true,
		Question: []dns.Question{{Name: s.names[0], Qtype: q.Type, Qclass: q.Class}},
		Answer:   s.answer, Ns: s.ns,
	}
	return &cleaned{msg: msg, ttl: s.boundTTLs(longest, longestNegative, found)}, nil
}

// nothing returns why a response with neither the requested records nor a SOA does not even say that there are none; "" if it may. A
// truncated response has come over TCP by then, where no more is to be had.
func (s *sanitiser) nothing() string {
	msg := s.response.msg
	switch alias := len(s.names) > 1; {
	case msg.Truncated:
		return "it is truncated, over TCP too"
	case alias:
		return ""
	case isReferral(msg):
		return "it refers to other servers"
	case len(msg.Answer) > 0:
		return "none of its records are those that were asked for"
	}
	return ""
}

// isReferral reports whether a response names servers to ask, rather than saying that there is no such record.
func isReferral(msg *dns.Msg) bool {
	for _, rr := range msg.Ns {
		if rr.Header().Rrtype == dns.TypeNS {
			return true
		}
	}
	return false
}

// followChain keeps the requested records and the aliases that lead to them. It reports whether there are requested records.
func (s *sanitiser) followChain() bool {
	for {
		name := s.names[len(s.names)-1]
		if s.keep(name, s.question.Type) {
			return true
		}
		target := s.keepAlias(name)
		if target == "" || len(s.names) > maxChain {
			return false
		}
		if slices.Contains(s.names, target) {
			return false
		}
		s.names = append(s.names, target)
	}
}

// keep keeps the records of a name and type, with their signatures. An RRset has no duplicates (RFC 2181 5), and all its records get its
// lowest TTL (RFC 2181 5.2).
func (s *sanitiser) keep(name string, rtype uint16) (found bool) {
	var set []dns.RR
	least := uint32(math.MaxUint32)
	for _, rr := range s.response.msg.Answer {
		if s.is(rr, name) && (rr.Header().Rrtype == rtype || rtype == dns.TypeANY) {
			set = append(set, rr)
			least = min(least, rr.Header().Ttl)
		}
	}
	if len(set) == 0 {
		return false
	}
	for _, rr := range set {
		rr.Header().Ttl = least
	}
	s.answer = append(s.answer, dns.Dedup(set, nil)...)
	if s.question.DO {
		s.answer = s.appendSignatures(s.answer, s.response.msg.Answer, name, rtype)
	}
	return true
}

// is reports whether rr has the given owner name and can be kept.
func (s *sanitiser) is(rr dns.RR, name string) bool {
	return s.proper(rr) && strings.EqualFold(rr.Header().Name, name)
}

// proper reports whether rr is a record that belongs in an answer, has the right class, and has data. The library mistakes records
// without data for those of updates (RFC 2136).
func (s *sanitiser) proper(rr dns.RR) bool {
	h := rr.Header()
	switch h.Rrtype {
	case dns.TypeNone, dns.TypeOPT, dns.TypeTSIG, dns.TypeTKEY, dns.TypeSIG, dns.TypeANY, dns.TypeAXFR, dns.TypeIXFR:
		return false
	}
	if h.Rdlength == 0 {
		switch rr.(type) {
		case *dns.RFC3597, *dns.NULL, *dns.APL:
		default:
			return false
		}
	}
	return h.Class == s.question.Class
}

func (s *sanitiser) appendSignatures(kept, section []dns.RR, name string, rtype uint16) []dns.RR {
	for _, rr := range section {
		if sig, ok := rr.(*dns.RRSIG); ok && sig.TypeCovered == rtype && rtype != dns.TypeANY && s.is(rr, name) {
			kept = append(kept, rr)
		}
	}
	return kept
}

// keepAlias keeps the CNAME of a name, with the DNAME it comes from. It returns the name's target, or "" if the name is no alias.
func (s *sanitiser) keepAlias(name string) (target string) {
	var alias *dns.CNAME
	for _, rr := range s.response.msg.Answer {
		if cname, ok := rr.(*dns.CNAME); ok && s.is(rr, name) {
			alias = cname
			break
		}
	}
	if alias == nil {
		return ""
	}
	target = strings.ToLower(alias.Target)
	s.keepOrigin(name, target)
	s.answer = append(s.answer, alias)
	if s.question.DO {
		s.answer = s.appendSignatures(s.answer, s.response.msg.Answer, name, dns.TypeCNAME)
	}
	return target
}

// keepOrigin keeps the DNAME that makes the name an alias of the target (RFC 6672 2.2).
func (s *sanitiser) keepOrigin(name, target string) {
	for _, rr := range s.response.msg.Answer {
		origin, ok := rr.(*dns.DNAME)
		if !ok || !s.proper(rr) {
			continue
		}
		owner := strings.ToLower(origin.Hdr.Name)
		if owner == name || !dns.IsSubDomain(owner, name) {
			continue
		}
		if owner == "." {
			owner = ""
		}
		if to := strings.ToLower(strings.TrimPrefix(origin.Target, ".")); strings.TrimSuffix(name, owner)+to != target {
			continue
		}
		s.answer = append(s.answer, origin)
		if s.question.DO {
			s.answer = s.appendSignatures(s.answer, s.response.msg.Answer, origin.Hdr.Name, dns.TypeDNAME)
		}
		return
	}
}

// findSOA keeps the SOA record that says how long something does not exist (RFC 2308 3): that of a zone that one of the names is in.
func (s *sanitiser) findSOA() {
	for _, rr := range s.response.msg.Ns {
		if soa, ok := rr.(*dns.SOA); ok && s.proper(rr) && s.above(soa.Hdr.Name) {
			s.negative = soa
			s.ns = append(s.ns, soa)
			if s.question.DO {
				s.ns = s.appendSignatures(s.ns, s.response.msg.Ns, soa.Hdr.Name, dns.TypeSOA)
			}
			return
		}
	}
}

// above reports whether one of the names is in the zone.
func (s *sanitiser) above(zone string) bool {
	for _, name := range s.names {
		if dns.IsSubDomain(zone, name) {
			return true
		}
	}
	return false
}

// keepProofs keeps the records that prove to a validator that names or types do not exist, or where a zone is not signed (RFC 4035 3.1.3,
// 3.1.4). Their owner names are elsewhere in the zone, but their signers' names are at or above a name of the answer.
func (s *sanitiser) keepProofs() {
	section := s.response.msg.Ns
	signatures := 0
	for _, rr := range section {
		sig, ok := rr.(*dns.RRSIG)
		if !ok {
			continue
		}
		if signatures++; signatures > maxProofs {
			return
		}
		if !s.proper(rr) || !s.above(sig.SignerName) || !dns.IsSubDomain(sig.SignerName, sig.Hdr.Name) {
			continue
		}
		switch sig.TypeCovered {
		case dns.TypeNSEC, dns.TypeNSEC3:
		case dns.TypeDS:
			if !s.above(sig.Hdr.Name) {
				continue
			}
		default:
			continue
		}
		found := false
		for _, signed := range section {
			if signed.Header().Rrtype == sig.TypeCovered && s.is(signed, sig.Hdr.Name) && !slices.Contains(s.ns, signed) {
				s.ns = append(s.ns, signed)
				found = true
			}
		}
		if found {
			s.ns = s.appendSignatures(s.ns, section, sig.Hdr.Name, sig.TypeCovered)
		}
	}
}

// boundTTLs bounds the TTLs and returns the lowest, or 0 for what must not be kept: without records nothing says for how long. A TTL
// whose first bit is set is a large one, and is cut like others (RFC 8767 4).
func (s *sanitiser) boundTTLs(longest, longestNegative time.Duration, found bool) time.Duration {
	least := uint32(maxTTL / time.Second)
	bound := func(section []dns.RR, most uint32) {
		for _, rr := range section {
			h := rr.Header()
			h.Ttl = min(h.Ttl, most)
			least = min(least, h.Ttl)
		}
	}
	most := uint32(longest / time.Second) //nolint:gosec // checked with the settings
	bound(s.answer, most)
	if s.negative != nil { // RFC 2308 5, and RFC 9077 3 for the proofs
		most = min(most, uint32(longestNegative/time.Second), s.negative.Minttl, s.negative.Hdr.Ttl) //nolint:gosec // as above
	}
	bound(s.ns, most)
	if !found && s.negative == nil && (len(s.names) == 1 || s.response.msg.Rcode != dns.RcodeSuccess) {
		return 0
	}
	return time.Duration(least) * time.Second
}

// restoreCase removes the capitals of the query from names in the response, so that nobody sees them. Compressed names take theirs from
// the question.
func (s *sanitiser) restoreCase() {
	sent, asked := s.response.sent, s.names[0]
	starts := dns.Split(sent)
	restore := func(name *string) {
		if strings.EqualFold(*name, asked) {
			*name = asked
			return
		}
		for _, start := range starts {
			if before, ok := strings.CutSuffix(*name, sent[start:]); ok {
				*name = before + strings.ToLower(sent[start:])
				return
			}
		}
	}
	for _, section := range [][]dns.RR{s.response.msg.Answer, s.response.msg.Ns} {
		for _, rr := range section {
			restore(&rr.Header().Name)
			switch rr := rr.(type) { // the types of RFC 1035 3.3 whose data may be compressed (RFC 3597 4)
			case *dns.CNAME:
				restore(&rr.Target)
			case *dns.NS:
				restore(&rr.Ns)
			case *dns.PTR:
				restore(&rr.Ptr)
			case *dns.MX:
				restore(&rr.Mx)
			case *dns.SOA:
				restore(&rr.Ns)
				restore(&rr.Mbox)
			}
		}
	}
}
