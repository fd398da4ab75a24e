package resolve

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// maxChain is the maximum number of names in a chain of CNAMEs, not counting those that forwarders followed themselves.
const maxChain = 8

// minimalANY answers questions of type ANY with a record that says that there is no such answer (RFC 8482 4.2).
var minimalANY = table.Set{
	Type: dns.TypeHINFO, Count: 1, TTL: 3600,
	Wire: []byte("\xc0\x0c\x00\x0d\x00\x01\x00\x00\x0e\x10\x00\x09\x07RFC8482\x00"),
}

// local answers from the table.
func (x *exchange) local(ctx context.Context, buf []byte, a *table.Answer) (resp []byte, wait bool) {
	name := x.q.Name()
	x.resp.AA, x.kind, x.subject = true, protect.Answers, name
	if a.Wildcard { // it covers many names, but is one
		x.subject = a.Above
	}
	buf = x.q.Begin(buf)
	if x.q.Type == dns.TypeANY && a.Kind != table.NXDomain {
		x.resp.Answers = 1
		return x.finish(minimalANY.Append(buf, wire.QuestionPointer, 0)), false
	}
	return x.along(ctx, buf, a, name, wire.HeaderSize)
}

// follow continues a chain of aliases with name, which is at offset at of the message.
func (x *exchange) follow(ctx context.Context, buf []byte, name wire.Name, at int) (resp []byte, wait bool) {
	a := x.table.Lookup(name, x.q.Type, x.view)
	return x.along(ctx, buf, &a, name, at)
}

// along follows a chain of aliases from name on; a is what the table knows about name.
func (x *exchange) along(ctx context.Context, buf []byte, a *table.Answer, name wire.Name, at int) (resp []byte, wait bool) {
	for x.seen(name) { // else the chain is a loop or too long: buf has what there is of it
		switch {
		case a.Kind == table.NotLocal:
			return x.chase(ctx, buf, name)
		case at > maxPointer:
			return x.fail(buf, dns.RcodeServerFailure, int(dns.ExtendedErrorCodeOther), tooLarge), false
		case a.Kind != table.Found:
			return x.finish(x.nothing(buf, a, name, at)), false
		}
		start := len(buf)
		buf = a.Set.Append(buf, pointer(at), x.first(a.Set))
		x.resp.Answers += int(a.Set.Count)
		if a.Set.Type != dns.TypeCNAME || x.q.Type == dns.TypeCNAME {
			return x.finish(buf), false
		}
		name, at = a.Set.Target(), start+rrHeader
		next := x.table.Lookup(name, x.q.Type, x.view)
		a = &next
	}
	return x.finish(buf), false
}

// seen records a name of the chain. It returns false if the name was there before or the chain is too long.
func (x *exchange) seen(name wire.Name) bool {
	if x.links == maxChain || slices.Contains(x.names[:x.links], name) {
		return false
	}
	x.names[x.links] = name
	x.links++
	return true
}

// rrHeader is the size of what precedes the data of a record whose owner name is a pointer.
const rrHeader = 12

// maxPointer is the last offset in a message at which pointers can reach every part of a name (RFC 1035 4.1.4). Records from forwarders
// may make a message longer.
const maxPointer = 0x3fff - wire.MaxName

// tooLarge is the text for answers that do not fit into a message.
const tooLarge = "the answer is too large"

// pointer returns a compression pointer to the name at an offset of the message.
func pointer(at int) uint16 { return 0xc000 | uint16(at) } //nolint:gosec // see maxPointer

// ancestor returns the offset of what is left of the name at offset at without its first labels. The name may be compressed.
func ancestor(msg []byte, at, labels int) int {
	for {
		if msg[at] >= 0xc0 {
			at = int(binary.BigEndian.Uint16(msg[at:]) &^ 0xc000)
		}
		if labels == 0 {
			return at
		}
		at += 1 + int(msg[at])
		labels--
	}
}

// nothing appends the SOA record that goes with an answer without records.
func (x *exchange) nothing(buf []byte, a *table.Answer, name wire.Name, at int) []byte {
	if a.Kind == table.NXDomain {
		x.resp.RCode = dns.RcodeNameError
	}
	x.kind, x.subject = protect.Negatives, "" // names that do not exist are many too, but zones are few
	if a.Zone != nil {
		x.subject = a.Zone.Name
	}
	if a.Zone != nil {
		at = ancestor(buf, at, name.Labels()-a.Zone.Name.Labels())
	}
	x.resp.Authority = 1
	return a.SOA.Append(buf, pointer(at), 0)
}

// first returns the index of the record to begin with.
func (x *exchange) first(set *table.Set) int {
	if !x.policy.Rotate || set.Count < 2 {
		return 0
	}
	return int(x.r.turn.Add(1) % uint32(set.Count))
}

var rateSeed = maphash.MakeSeed()

// rateLimited returns what the rate limit leaves of a response.
func (x *exchange) rateLimited(resp []byte) []byte {
	client := x.peer.AddrPort.Addr()
	if x.policy.Unlimited != nil && within(x.policy.Unlimited, client) {
		return resp
	}
	hash := maphash.String(rateSeed, string(x.subject))
	if x.kind == protect.Answers {
		hash ^= uint64(x.q.Type)
	}
	switch x.policy.Rates.Allow(client, x.kind, hash, x.now) {
	case protect.Drop:
		return nil
	case protect.Truncate:
		return x.truncated(resp)
	}
	return resp
}
