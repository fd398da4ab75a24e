package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/miekg/dns"
)

// errServfail is for an upstream that says SERVFAIL.
var errServfail = errors.New("the upstream says SERVFAIL")

// Outcomes of asking an upstream, in metrics.
const (
	outcomeAnswer   = "answer"
	outcomeServfail = "servfail"
	outcomeUnusable = "unusable"
	outcomeTimeout  = "timeout"
	outcomeNetwork  = "network"
)

// ask asks the upstreams of a zone one after the other until one has an answer or the time is over. Those that did not answer are asked
// again after the others, unless one of these says SERVFAIL; those that did have said what they know.
func (f *Forwarder) ask(ctx context.Context, s *settings, z *zone, q *Question) (*Answer, *Failure) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	// By the clock, which sockets go by: the context's timer may fire a moment later, in which every try fails at once.
	deadline, _ := ctx.Deadline()
	over := func() bool { return ctx.Err() != nil || !time.Now().Before(deadline) }
	left := inOrder(z.upstreams)
	if len(left) == 0 {
		return nil, newFailure(ErrLoop, nil)
	}
	var servfail *Answer
	cause, detail := ErrNetwork, error(nil)
	for len(left) > 0 && !over() {
		silent := left[:0]
		for _, u := range left {
			answer, err := f.try(ctx, s, u, q)
			switch {
			case err == nil:
				return answer, nil
			case f.life.Err() != nil:
				return nil, newFailure(ErrClosed, nil)
			case errors.Is(err, errServfail):
				servfail = answer
			case errors.Is(err, errUnusable):
				cause = ErrUnusable
			case isTimeout(err):
				if !errors.Is(cause, ErrUnusable) {
					cause = ErrTimeout
				}
				silent = append(silent, u)
			}
			detail = fmt.Errorf("%s: %w", u, err)
			if over() {
				break
			}
		}
		if servfail != nil {
			return servfail, nil
		}
		left = silent
	}
	return nil, newFailure(cause, detail)
}

func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	network, ok := errors.AsType[net.Error](err)
	return ok && network.Timeout()
}

// try asks an upstream once. With errServfail there is an answer that says so.
func (f *Forwarder) try(ctx context.Context, s *settings, u *upstream, q *Question) (*Answer, error) {
	started := time.Now()
	answer, err := f.answerOf(ctx, s, u, q)
	if f.life.Err() != nil { // which says nothing of the upstream
		return answer, err
	}
	outcome := outcomeAnswer
	switch {
	case err == nil:
	case errors.Is(err, errServfail):
		outcome = outcomeServfail
	case errors.Is(err, errUnusable):
		outcome = outcomeUnusable
	case isTimeout(err):
		outcome = outcomeTimeout
	default:
		outcome = outcomeNetwork
	}
	f.note(u, outcome, time.Since(started), err)
	return answer, err
}

// answerOf asks an upstream and says what its response is worth.
func (f *Forwarder) answerOf(ctx context.Context, s *settings, u *upstream, q *Question) (*Answer, error) {
	x := exchanger{
		upstream: u, question: q, udpSize: s.UDPSize, randomCase: f.randomCase(s, u), limit: s.Timeout / tries, metrics: f.metrics,
	}
	resp, err := x.do(ctx)
	if err == nil && rejectsEDNS(resp.msg.Rcode) {
		x.udpSize = 0
		resp, err = x.do(ctx)
	}
	if err != nil {
		return nil, err
	}
	f.noteCase(u, resp.capitals)
	now := f.now()
	switch resp.msg.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError, dns.RcodeYXDomain:
	case dns.RcodeServerFailure:
		answer, err := failed(q, now)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnusable, err)
		}
		answer.Upstream, answer.Info = u.label, infoOf(resp.msg)
		return answer, errServfail
	default:
		return nil, fmt.Errorf("%w: it has the code %s", errUnusable, rcodeName(resp.msg.Rcode))
	}
	clean, err := sanitise(q, resp, s.MaxTTL, s.MaxNegativeTTL)
	if err != nil {
		return nil, err
	}
	answer, err := newAnswer(clean.msg, now, clean.ttl)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	answer.Upstream, answer.Info = u.label, infoOf(resp.msg)
	return answer, nil
}

// rejectsEDNS reports whether the code is what servers say that do not know EDNS (RFC 6891 7).
func rejectsEDNS(rcode int) bool {
	return rcode == dns.RcodeFormatError || rcode == dns.RcodeNotImplemented || rcode == dns.RcodeBadVers
}

// failed is the answer SERVFAIL.
func failed(q *Question, now time.Time) (*Answer, error) {
	return newAnswer(&dns.Msg{
		MsgHdr:   dns.MsgHdr{Response: true, Rcode: dns.RcodeServerFailure},
		Question: []dns.Question{{Name: q.Name.String(), Qtype: q.Type, Qclass: q.Class}},
	}, now, failureTTL)
}

func rcodeName(rcode int) string {
	if name, ok := dns.RcodeToString[rcode]; ok {
		return name
	}
	return fmt.Sprintf("RCODE%d", rcode)
}

// maxInfoText bounds the text of an Info.
const maxInfoText = 128

// infoOf is the first extended error of a response.
func infoOf(msg *dns.Msg) *Info {
	opt := msg.IsEdns0()
	if opt == nil {
		return nil
	}
	for _, option := range opt.Option {
		if extended, ok := option.(*dns.EDNS0_EDE); ok {
			return &Info{Code: extended.InfoCode, Text: extended.ExtraText[:min(len(extended.ExtraText), maxInfoText)]}
		}
	}
	return nil
}
