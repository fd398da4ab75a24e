package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/kit/errs"
)

// longBody is the length in bytes from which on a body may take so long that the right to it could end meanwhile.
const longBody = 64 << 10

// mayLast reports whether a request may last before there is an answer: its body has no known end or is long, or it asks for an upgrade.
func mayLast(r *http.Request) bool {
	return r.ContentLength < 0 || r.ContentLength > longBody || len(r.Header["Upgrade"]) > 0
}

// errEnded is the cause of the context of a call that is ended.
var errEnded = errors.New("the gateway ended the call")

// enter notes a call that may last before there is an answer, and makes its context one that can be ended.
func (p *Proxy) enter(c *call.Call, r *http.Request) (next *http.Request, done context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(r.Context())
	next = r.WithContext(ctx)
	p.lasting.Enter(c, r, func() { cancel(errEnded) })
	return next, func() { cancel(nil) }
}

// answered has a call judged again whose rights may have changed while it waited for its answer, and notes a response that may last. The
// error says that the call was ended.
func (p *Proxy) answered(c *call.Call, resp *http.Response) error {
	streams := resp.ContentLength < 0 || resp.ContentLength > longBody
	lasts := streams && resp.Body != http.NoBody || c.Stay != nil
	if p.lasting.Seen() != c.Seen && p.lasting.Arrived(c, c.Request, lasts) != nil {
		return errEnded
	}
	if !lasts {
		return nil
	}
	p.lasting.Enter(c, c.Request, nil)
	var body io.Closer
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body = resp.Body
	}
	if p.lasting.Answered(c, body) != nil {
		return errEnded
	}
	if c.GRPC {
		resp.Body = &told{ReadCloser: resp.Body, of: c, resp: resp}
	}
	return nil
}

// told is the body of a stream of gRPC. When the gateway ends the call, the body ends, too, with trailers that say why.
type told struct {
	io.ReadCloser
	of   *call.Call
	resp *http.Response
}

// Read implements io.Reader.
func (b *told) Read(p []byte) (int, error) {
	if b.of.Ending() == nil {
		n, err := b.ReadCloser.Read(p)
		if err == nil || errors.Is(err, io.EOF) || b.of.Ending() == nil {
			return n, err
		}
	}
	if b.resp.Trailer == nil {
		b.resp.Trailer = make(http.Header)
	}
	kind := errs.KindOf(b.of.Ending().Err)
	b.resp.Trailer["Grpc-Status"] = []string{endings[kind]}
	b.resp.Trailer["Grpc-Message"] = []string{"the gateway ended the call: " + kind.Title()}
	return 0, io.EOF
}

// endings are the codes of gRPC for the reasons that calls are ended for: UNAUTHENTICATED, PERMISSION_DENIED and UNAVAILABLE.
var endings = map[errs.Kind]string{errs.Unauthenticated: "16", errs.Forbidden: "7", errs.Unavailable: "14"}
