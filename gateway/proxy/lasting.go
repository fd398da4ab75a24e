package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/kit/errs"
)

// longBody is the length in bytes above which a body may take so long that the right to the call could end meanwhile.
const longBody = 64 << 10

// mayLast reports whether a request may last before there is a response: its body is long or of unknown length, or it asks for an upgrade.
func mayLast(r *http.Request) bool {
	return r.ContentLength < 0 || r.ContentLength > longBody || len(r.Header["Upgrade"]) > 0
}

// errEnded is the cancellation cause of a call that the gateway ended.
var errEnded = errors.New("the gateway ended the call")

// enter registers a call that may last before there is a response, and gives its request a context that can be cancelled.
func (p *Proxy) enter(c *call.Call, r *http.Request) (next *http.Request, done context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(r.Context())
	next = r.WithContext(ctx)
	p.lasting.Enter(c, r, func() { cancel(errEnded) })
	return next, func() { cancel(nil) }
}

// answered has a call judged again if its rights may have changed while it waited for the response, and registers a response that may last.
// It returns errEnded if the call was ended.
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

// told is the body of a gRPC stream. If the gateway ends the call, the body ends with trailers that say why.
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

// endings are the gRPC status codes for the reasons that calls are ended for: UNAUTHENTICATED, PERMISSION_DENIED and UNAVAILABLE.
var endings = map[errs.Kind]string{errs.Unauthenticated: "16", errs.Forbidden: "7", errs.Unavailable: "14"}
