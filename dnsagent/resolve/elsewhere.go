package resolve

import (
	"context"
	"errors"
	"strings"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/forward"
	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// elsewhere answers what the table does not.
func (x *exchange) elsewhere(ctx context.Context, buf []byte) (resp []byte, wait bool) {
	name := x.q.Name()
	if !x.recursive || !x.q.RD || !x.r.forward.Handles(name) {
		return x.fail(buf, dns.RcodeRefused, int(dns.ExtendedErrorCodeNotAuthoritative), ""), false
	}
	x.resp.RA = true
	if x.q.Type == dns.TypeANY {
		x.kind, x.subject, x.resp.Answers = protect.Answers, name, 1
		return x.finish(minimalANY.Append(x.q.Begin(buf), wire.QuestionPointer, 0)), false
	}
	if x.r.forward.LoopProbe(name) {
		return x.fail(buf, dns.RcodeRefused, int(dns.ExtendedErrorCodeOther), "a forwarder leads back here"), false
	}
	question := x.question(name)
	if answer, ok := x.r.forward.Cached(&question, x.now); ok {
		x.source = sourceCache
		return x.forwarded(ctx, buf, answer)
	}
	if ctx == nil {
		return nil, true
	}
	question.Name = wire.Name(strings.Clone(string(name)))
	x.source = sourceUpstream
	answer, err := x.r.forward.Resolve(ctx, &question)
	if err != nil {
		return x.failed(buf, err), false
	}
	return x.forwarded(ctx, buf, answer)
}

// question returns the question about a name to ask the forwarders.
func (x *exchange) question(name wire.Name) forward.Question {
	return forward.Question{Name: name, Type: x.q.Type, Class: x.q.Class, DO: x.q.DO, CD: x.q.CD}
}

// failed responds to a question that the forwarders did not answer.
func (x *exchange) failed(buf []byte, err error) []byte {
	x.failure = err
	info, text := int(dns.ExtendedErrorCodeOther), ""
	if f, ok := errors.AsType[*forward.Failure](err); ok {
		info, text = int(f.Code), f.Text
	}
	return x.fail(buf, dns.RcodeServerFailure, info, text)
}

// forwarded responds with a forwarder's answer, as far as it does not lead to a name that the table knows.
func (x *exchange) forwarded(ctx context.Context, buf []byte, answer *forward.Answer) (resp []byte, wait bool) {
	x.kind, x.subject = protect.Answers, x.q.Name()
	x.inform(answer)
	if own := x.own(answer); own != nil {
		x.seen(x.q.Name())
		buf = answer.AppendUntil(buf, x.now, own)
		x.q.Question(buf)
		x.resp.Answers = own.Records
		return x.follow(ctx, buf, own.Name, own.At)
	}
	buf = answer.Append(buf, x.now)
	x.q.Question(buf)
	x.resp.RCode = answer.RCode()
	if x.resp.RCode == dns.RcodeNameError {
		x.kind, x.subject = protect.Negatives, ""
	}
	x.resp.AD = answer.AD && !answer.Stale(x.now) && (x.q.AD || x.q.DO) // RFC 6840 5.7
	x.resp.Answers, x.resp.Authority = answer.Counts()
	return x.finish(buf), false
}

// inform sets the extended error that goes with a forwarder's answer.
func (x *exchange) inform(answer *forward.Answer) {
	switch {
	case answer.Stale(x.now):
		x.stale = true
		x.resp.Info, x.resp.Text = int(dns.ExtendedErrorCodeStaleAnswer), ""
	case answer.Info != nil:
		x.resp.Info, x.resp.Text = int(answer.Info.Code), answer.Info.Text
	}
}

// own returns the first name in an answer's chain of aliases that the table knows: what others say about that name does not count.
// Answers that lead to no such name, which are nearly all, are checked once for each table.
func (x *exchange) own(answer *forward.Answer) *forward.Alias {
	aliases := answer.Aliases()
	if len(aliases) == 0 || answer.Apart(x.table.generation) {
		return nil
	}
	apart := true
	for i := range aliases {
		name := aliases[i].Name
		if x.table.Lookup(name, x.q.Type, x.view).Kind != table.NotLocal {
			return &aliases[i]
		}
		apart = apart && !x.table.Knows(name)
	}
	if apart {
		answer.SetApart(x.table.generation)
	}
	return nil
}

// chase continues a chain of aliases that leads out of the table. buf holds the response so far.
func (x *exchange) chase(ctx context.Context, buf []byte, target wire.Name) (resp []byte, wait bool) {
	if !x.recursive || !x.q.RD || !x.r.forward.Handles(target) || x.r.forward.LoopProbe(target) {
		return x.finish(buf), false
	}
	question := x.question(target)
	answer, ok := x.r.forward.Cached(&question, x.now)
	if !ok {
		if ctx == nil {
			return nil, true
		}
		var err error
		if answer, err = x.r.forward.Resolve(ctx, &question); err != nil {
			return x.failed(buf, err), false
		}
	}
	x.inform(answer)
	own := x.own(answer)
	buf, at, err := x.append(buf, answer, own)
	switch {
	case err != nil:
		return x.failed(buf, err), false
	case own != nil:
		return x.follow(ctx, buf, own.Name, at)
	}
	x.resp.RCode = answer.RCode()
	return x.finish(buf), false
}

// append appends the records of an answer or, if until is not nil, only those that lead to that alias, and returns the alias's offset.
func (x *exchange) append(buf []byte, answer *forward.Answer, until *forward.Alias) (longer []byte, at int, err error) {
	var m dns.Msg
	if err := m.Unpack(answer.Append(nil, x.now)); err != nil {
		return buf, 0, err
	}
	if until != nil {
		m.Answer, m.Ns = m.Answer[:until.Records], nil
	}
	for i, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			start := len(buf)
			buf = append(buf, make([]byte, dns.Len(rr))...)
			end, err := dns.PackRR(rr, buf, start, nil, false)
			if err != nil {
				return buf, 0, err
			}
			buf = buf[:end]
			if i > 0 {
				x.resp.Authority++
				continue
			}
			x.resp.Answers++
			if _, ok := rr.(*dns.CNAME); ok && until != nil {
				at = end - len(until.Name)
			}
		}
	}
	return buf, at, nil
}
