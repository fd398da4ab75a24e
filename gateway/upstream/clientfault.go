package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// clientFault is what is wrong with the request when an attempt to send it failed for that, nil when the target has to answer for
// the failure: otherwise whoever sends bad requests could have endpoints ejected for everybody.
func (o *outgoing) clientFault(err error) error {
	if why := o.body.fault.Load(); why != nil {
		return *why
	}
	if why := unsendable(&o.req); why != nil {
		return why
	}
	if strings.HasSuffix(err.Error(), tooLongForPeer) {
		return err
	}
	return nil
}

// tooLongForPeer is the end of what net/http says of a header that is longer than the target's SETTINGS_MAX_HEADER_LIST_SIZE
// (RFC 9113 6.5.2) before it sends anything; it has no name for this error.
const tooLongForPeer = "request header list larger than peer's advertised limit"

// unsendable is why net/http refuses to send a request, nil when it does not. The query was checked before, and paths are escaped.
func unsendable(r *http.Request) error {
	if !isToken(r.Method) {
		return fmt.Errorf("the method %q is none", r.Method)
	}
	host, err := httpguts.PunycodeHostPort(r.Host)
	if err != nil {
		return fmt.Errorf("the host cannot be sent: %w", err)
	}
	if !httpguts.ValidHostHeader(host) {
		return errors.New("the host cannot be sent")
	}
	for _, h := range []http.Header{r.Header, r.Trailer} {
		for name, values := range h {
			// What is in the values may be a secret.
			if !isField(name, values) {
				return fmt.Errorf("the header field %q cannot be sent", name)
			}
		}
	}
	return nil
}

// isField reports whether a header field can be sent (RFC 9110 5.1 and 5.5).
func isField(name string, values []string) bool {
	if !httpguts.ValidHeaderFieldName(name) {
		return false
	}
	for _, v := range values {
		if !httpguts.ValidHeaderFieldValue(v) {
			return false
		}
	}
	return true
}

// isToken reports whether a method is one (RFC 9110 9.1). "" is GET.
func isToken(method string) bool { return method == "" || httpguts.ValidHeaderFieldName(method) }

var errBlank = errors.New("the query has a space or control character")

// isBlank reports whether a character cannot stand in a request line (RFC 9112 3).
func isBlank(r rune) bool { return r <= ' ' || r == 0x7f }
