package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// clientFault returns what is wrong with the request if an attempt failed because of it, and nil if the target is to blame.
// Otherwise a client with bad requests could have endpoints ejected for everyone.
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

// tooLongForPeer is the suffix of the error with which net/http refuses a header longer than the target's
// SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 6.5.2) before sending anything. net/http does not export this error.
const tooLongForPeer = "request header list larger than peer's advertised limit"

// unsendable returns why net/http refuses to send a request, if it does. The query was checked before, and paths are escaped.
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
			// The values may be secret.
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

// isToken reports whether a method is valid (RFC 9110 9.1). "" means GET.
func isToken(method string) bool { return method == "" || httpguts.ValidHeaderFieldName(method) }

var errBlank = errors.New("the query has a space or control character")

// isBlank reports whether a character is not allowed in a request line (RFC 9112 3).
func isBlank(r rune) bool { return r <= ' ' || r == 0x7f }
