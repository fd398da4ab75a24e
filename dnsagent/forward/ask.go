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

// errServfail is the error for an upstream that responds with SERVFAIL.
var errServfail = errors.New("the upstream says SERVFAIL")

// Outcomes of asking an upstream, as metrics label them.
const (
	outcomeAnswer   = "answer"
	outcomeServfail = "servfail"
	outcomeUnusable = "unusable"
	outcomeTimeout  = "timeout"
	outcomeNetwork  = "network"
)

func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	network, ok := errors.AsType[net.Error](err)
	return ok && network.Timeout()
}

// unanswered is the error for an upstream that did not answer in time, whatever the wait was for.
type unanswered struct {
	after time.Duration
	cause error
}

func (s *unanswered) Error() string {
	return fmt.Sprintf("no answer within %s", s.after.Round(time.Millisecond))
}

func (s *unanswered) Unwrap() error { return s.cause }

// outcomeOf returns the outcome, for metrics, of asking an upstream.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return outcomeAnswer
	case errors.Is(err, errServfail):
		return outcomeServfail
	case errors.Is(err, errUnusable):
		return outcomeUnusable
	case isTimeout(err):
		return outcomeTimeout
	default:
		return outcomeNetwork
	}
}

// answerOf asks an upstream and makes an answer of its response. Together with errServfail it returns an answer that says SERVFAIL.
func (f *Forwarder) answerOf(ctx context.Context, s *settings, x *exchanger) (*Answer, error) {
	u, q, began := x.upstream, x.question, time.Now()
	resp, err := x.do(ctx)
	if err == nil && rejectsEDNS(resp.msg.Rcode) {
		x.udpSize = 0
		resp, err = x.do(ctx)
	}
	if err != nil && isTimeout(err) {
		err = &unanswered{time.Since(began), err}
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

// rejectsEDNS reports whether servers that do not support EDNS respond with this code (RFC 6891 7).
func rejectsEDNS(rcode int) bool {
	return rcode == dns.RcodeFormatError || rcode == dns.RcodeNotImplemented || rcode == dns.RcodeBadVers
}

// failed returns the answer SERVFAIL to a question.
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

// infoOf returns the first extended error of a response, or nil.
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
