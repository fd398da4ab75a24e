package resolve

import (
	"context"
	"errors"
	"strings"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/forward"
	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/wire"
)

// elsewhere answers what the table knows nothing of.
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
	question := forward.Question{Name: name, Type: x.q.Type, Class: x.q.Class, DO: x.q.DO, CD: x.q.CD}
	if answer, ok := x.r.forward.Cached(&question, x.now); ok {
		x.source = sourceCache
		return x.forwarded(buf, answer), false
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
	return x.forwarded(buf, answer), false
}

// failed answers what the forwarders do not.
func (x *exchange) failed(buf []byte, err error) []byte {
	info, text := int(dns.ExtendedErrorCodeOther), ""
	if f, ok := errors.AsType[*forward.Failure](err); ok {
		info, text = int(f.Code), f.Text
	}
	return x.fail(buf, dns.RcodeServerFailure, info, text)
}

// forwarded answers with what a forwarder said.
func (x *exchange) forwarded(buf []byte, answer *forward.Answer) []byte {
	x.kind, x.subject = protect.Answers, x.q.Name()
	buf = answer.Append(buf, x.now)
	x.q.Question(buf)
	x.resp.RCode = answer.RCode()
	if x.resp.RCode == dns.RcodeNameError {
		x.kind, x.subject = protect.Negatives, ""
	}
	stale := answer.Stale(x.now)
	x.resp.AD = answer.AD && !stale && (x.q.AD || x.q.DO) // RFC 6840 5.7
	x.resp.Answers, x.resp.Authority = answer.Counts()
	switch {
	case stale:
		x.resp.Info = int(dns.ExtendedErrorCodeStaleAnswer)
	case answer.Info != nil:
		x.resp.Info, x.resp.Text = int(answer.Info.Code), answer.Info.Text
	}
	return x.finish(buf)
}

// chase continues a chain of CNAMEs that leads out of the table. buf holds what there is of the answer.
func (x *exchange) chase(ctx context.Context, buf []byte, target wire.Name) (resp []byte, wait bool) {
	if !x.recursive || !x.q.RD || !x.r.forward.Handles(target) || x.r.forward.LoopProbe(target) {
		return x.finish(buf), false
	}
	if ctx == nil {
		return nil, true
	}
	question := forward.Question{Name: target, Type: x.q.Type, Class: x.q.Class, DO: x.q.DO, CD: x.q.CD}
	answer, err := x.r.forward.Resolve(ctx, &question)
	if err != nil {
		return x.failed(buf, err), false
	}
	var m dns.Msg
	if err := m.Unpack(answer.Append(nil, x.now)); err != nil {
		return x.failed(buf, err), false
	}
	x.resp.RCode = answer.RCode()
	for i, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			at := len(buf)
			buf = append(buf, make([]byte, dns.Len(rr))...)
			end, err := dns.PackRR(rr, buf, at, nil, false)
			if err != nil {
				return x.failed(buf, err), false
			}
			buf = buf[:end]
			if i == 0 {
				x.resp.Answers++
			} else {
				x.resp.Authority++
			}
		}
	}
	if len(buf) > dns.MaxMsgSize {
		return x.fail(buf, dns.RcodeServerFailure, int(dns.ExtendedErrorCodeOther), "the answer is too large"), false
	}
	return x.finish(buf), false
}
