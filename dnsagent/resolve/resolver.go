package resolve

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/dnsagent/forward"
	"github.com/openmep/mep/dnsagent/listen"
	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// Resolver answers messages. It implements listen.Handler.
type Resolver struct {
	records atomic.Pointer[Records]
	// generation is the number of SetRecords calls so far.
	generation uint64
	policy     atomic.Pointer[Policy]
	forward    *forward.Forwarder
	turn       atomic.Uint32
	pool       sync.Pool
	stats      stats
}

// New returns a Resolver that has no table yet: until it gets one, it answers SERVFAIL.
func New(policy *Policy, f *forward.Forwarder, reg prometheus.Registerer) *Resolver {
	r := &Resolver{forward: f}
	r.pool.New = func() any { return &exchange{r: r} }
	r.policy.Store(policy)
	r.stats.register(reg)
	return r
}

// SetRecords puts records into use. It must not be called concurrently.
func (r *Resolver) SetRecords(records *Records) {
	r.generation++
	records.generation = r.generation
	r.records.Store(records)
}

// Table returns the table in use; nil before the first.
func (r *Resolver) Table() *table.Table {
	if records := r.records.Load(); records != nil {
		return records.Table
	}
	return nil
}

// SetPolicy puts a policy into use.
func (r *Resolver) SetPolicy(p *Policy) { r.policy.Store(p) }

// Answer implements listen.Handler.
func (r *Resolver) Answer(buf, msg []byte, peer *listen.Peer) (resp []byte, wait bool) {
	x := r.begin(peer)
	defer r.pool.Put(x)
	resp, wait = x.run(nil, buf, msg) //nolint:staticcheck // nil: do not wait
	if wait {
		return nil, true
	}
	return x.limited(resp), false
}

// Resolve implements listen.Handler.
func (r *Resolver) Resolve(ctx context.Context, buf, msg []byte, peer *listen.Peer) []byte {
	x := r.begin(peer)
	defer r.pool.Put(x)
	resp, _ := x.run(ctx, buf, msg)
	return x.limited(resp)
}

// Overloaded implements listen.Handler.
func (r *Resolver) Overloaded(buf, msg []byte, peer *listen.Peer) []byte {
	x := r.begin(peer)
	defer r.pool.Put(x)
	if x.q.Parse(msg) != wire.Fine {
		return nil
	}
	if resp, done := x.screen(buf); done {
		return x.limited(resp)
	}
	question := x.question(x.q.Name())
	if answer, ok := r.forward.Known(&question, x.now); ok && x.recursive && x.table.Lookup(question.Name, question.Type, x.view).Kind == table.NotLocal {
		x.source = sourceCache
		if resp, wait := x.forwarded(nil, buf, answer); !wait { //nolint:staticcheck // nil: do not wait
			return x.limited(resp)
		}
	}
	x.source = sourceOverload
	return x.limited(x.fail(buf, dns.RcodeServerFailure, int(dns.ExtendedErrorCodeNotReady), "too many questions are under way"))
}

// exchange is a query and its response in the making.
type exchange struct {
	r      *Resolver
	q      wire.Query
	resp   wire.Response
	policy *Policy
	table  *Records // nil before the first
	peer   *listen.Peer
	now    time.Time
	view   table.View
	// recursive says that the client may have questions forwarded, trusted that it has presented a cookie of this server.
	recursive, trusted bool
	cookie             [protect.CookieSize]byte
	source             source
	// failure is why no forwarder had an answer; stale says that a stale answer was given instead.
	failure error
	stale   bool
	// names holds the names in the chain of aliases so far; links is their number.
	names [maxChain]wire.Name
	links int
	// kind and subject determine which responses are the same to the rate limit.
	kind    protect.Kind
	subject wire.Name
}

func (r *Resolver) begin(peer *listen.Peer) *exchange {
	x := r.pool.Get().(*exchange)
	x.policy, x.table, x.peer, x.now = r.policy.Load(), r.records.Load(), peer, time.Now()
	x.resp = wire.Response{UDPSize: x.policy.UDPSize, Info: wire.NoInfo}
	x.view, x.recursive, x.trusted, x.source, x.kind = table.Everyone, false, false, sourceNone, protect.Errors
	x.subject, x.links, x.failure, x.stale = "", 0, nil, false
	return x
}

// run answers a message. With a nil context it does not wait, and reports whether it would have to.
func (x *exchange) run(ctx context.Context, buf, msg []byte) (resp []byte, wait bool) {
	switch x.q.Parse(msg) {
	case wire.Ignored:
		x.r.stats.ignored.Add(1)
		return nil, false
	case wire.Malformed:
		x.q.EDNS = false // nothing in the message can be relied on
		return x.fail(buf, dns.RcodeFormatError, wire.NoInfo, ""), false
	case wire.Fine:
	}
	if resp, done := x.screen(buf); done {
		return resp, false
	}
	a := x.table.Lookup(x.q.Name(), x.q.Type, x.view)
	if a.Kind != table.NotLocal && !x.delegation(&a) {
		x.source = sourceTable
		return x.local(ctx, buf, &a)
	}
	return x.elsewhere(ctx, buf)
}

// delegation reports whether the question is for what the parent zone says about a zone of the platform (RFC 4035 3.1.4.1), and there is
// an upstream to ask.
func (x *exchange) delegation(a *table.Answer) bool {
	return x.q.Type == dns.TypeDS && a.Zone != nil && a.Kind == table.NoData && x.q.Name() == a.Zone.Name &&
		x.recursive && x.q.RD && len(a.Zone.Name) > 1 && x.table.ZoneOf(a.Zone.Name.Parent()) == nil && x.r.forward.Handles(a.Zone.Name.Parent())
}

// responseBlock is the block length, in octets, to which responses over TLS to padded queries are padded (RFC 8467 4.1).
const responseBlock = 468

// screen answers messages that need no lookup.
func (x *exchange) screen(buf []byte) (resp []byte, done bool) {
	p, q, client := x.policy, &x.q, x.peer.AddrPort.Addr()
	if q.Padded && x.peer.Transport == listen.TLS {
		x.resp.Block = responseBlock
	}
	if !within(p.Query, client) {
		return x.fail(buf, dns.RcodeRefused, int(dns.ExtendedErrorCodeProhibited), ""), true
	}
	x.recursive = within(p.Recursion, client)
	x.resp.RA = x.recursive && x.r.forward.Handles(wire.Root)
	if x.table != nil {
		x.view = x.table.view(client)
	}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		return x.fail(buf, dns.RcodeNotImplemented, wire.NoInfo, ""), true
	case q.Version > 0:
		return x.fail(buf, dns.RcodeBadVers, wire.NoInfo, ""), true
	case !x.checkCookie(client):
		return x.fail(buf, dns.RcodeFormatError, wire.NoInfo, ""), true
	case !q.HasQuestion():
		return x.fail(buf, dns.RcodeSuccess, wire.NoInfo, ""), true
	case q.Class != dns.ClassINET, q.Type == dns.TypeOPT, q.Type >= firstMetaType && q.Type <= lastMetaType && q.Type != dns.TypeANY:
		return x.fail(buf, dns.RcodeRefused, int(dns.ExtendedErrorCodeNotSupported), ""), true
	case x.table == nil:
		return x.fail(buf, dns.RcodeServerFailure, int(dns.ExtendedErrorCodeNotReady), "the records have not been read yet"), true
	}
	return nil, false
}

// The types that are not types of records (RFC 6895 3.1), such as those of zone transfers. Of these, only ANY is answered.
const (
	firstMetaType = 128
	lastMetaType  = 255
)

// checkCookie checks the client's cookie and reports whether it is well formed.
func (x *exchange) checkCookie(client netip.Addr) bool {
	if x.policy.Cookies == nil || x.q.Cookie == nil {
		return true
	}
	verdict := x.policy.Cookies.Check(x.q.Cookie, client, x.now)
	if verdict == protect.CookieMalformed {
		return false
	}
	x.trusted = verdict.Genuine()
	x.resp.Cookie = x.policy.Cookies.Append(x.cookie[:0], x.q.Cookie[:protect.ClientCookieSize], client, x.now)
	return true
}

// fail ends the exchange without records.
func (x *exchange) fail(buf []byte, rcode, info int, text string) []byte {
	x.resp.RCode, x.resp.Info, x.resp.Text, x.resp.AA = rcode, info, text, false
	x.resp.Answers, x.resp.Authority = 0, 0
	return x.q.Finish(x.q.Begin(buf[:0]), &x.resp)
}

// finish ends the exchange with the records in buf, or without any if they are too large for the client.
func (x *exchange) finish(buf []byte) []byte {
	if len(buf)+x.q.OPTSize(&x.resp) > x.room() {
		if x.peer.Transport != listen.UDP { // no transport has more room
			return x.fail(buf, dns.RcodeServerFailure, int(dns.ExtendedErrorCodeOther), tooLarge)
		}
		return x.truncated(buf)
	}
	return x.q.Finish(buf, &x.resp)
}

func (x *exchange) truncated(buf []byte) []byte {
	x.resp.TC, x.resp.Answers, x.resp.Authority = true, 0, 0
	return x.q.Finish(buf[:x.q.BodySize()], &x.resp)
}

// room returns how large the response may be.
func (x *exchange) room() int {
	switch {
	case x.peer.Transport != listen.UDP:
		return dns.MaxMsgSize
	case !x.q.EDNS:
		return dns.MinMsgSize
	}
	return int(min(max(x.q.UDPSize, dns.MinMsgSize), max(x.policy.UDPSize, dns.MinMsgSize)))
}

// limited returns what the rate limit leaves of a response, and counts the response unless it is dropped.
func (x *exchange) limited(resp []byte) []byte {
	if len(resp) == 0 {
		return nil
	}
	if x.policy.Rates != nil && x.peer.Transport == listen.UDP && !x.trusted {
		resp = x.rateLimited(resp)
	}
	if len(resp) > 0 {
		x.r.stats.count(x.peer.Transport, x.source, x.resp.RCode)
	}
	return resp
}
