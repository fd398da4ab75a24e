package front

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/kit/errs"
)

// grpcCodes are the gRPC codes that clients see in place of HTTP statuses. gRPC clients map HTTP statuses in another way: they would take a
// quota that is used up for a service that is unavailable, and retry at once.
var grpcCodes = map[errs.Kind]int{
	errs.Invalid: 3, errs.Unauthenticated: 16, errs.Forbidden: 7, errs.NotFound: 5, errs.MethodNotAllowed: 12, errs.Conflict: 10,
	errs.TooLarge: 8, errs.URITooLong: 8, errs.HeaderTooLarge: 8, errs.TooManyRequests: 8, errs.Unavailable: 14, errs.BadGateway: 14,
	errs.GatewayTimeout: 4, errs.RequestTimeout: 4,
}

// internal is the code for errors that have none of their own.
const internal = 13

// isGRPC reports whether a media type is that of gRPC. That of grpc-web, which also works over HTTP/1.1, is not.
func isGRPC(mediaType string) bool {
	rest, ok := strings.CutPrefix(mediaType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcProblem answers a gRPC call with an error, as a trailers-only response. The call counts under the HTTP status of the error.
func grpcProblem(c *call.Call, w http.ResponseWriter, err error) {
	kind := errs.KindOf(err)
	code, ok := grpcCodes[kind]
	if !ok {
		code = internal
	}
	message := kind.Title()
	if e, ok := errors.AsType[*errs.Error](err); ok && kind != errs.Internal {
		message = e.Detail
	}
	c.Writer.Status = kind.Status()
	h := w.Header()
	h["Content-Type"] = []string{"application/grpc"}
	h["Grpc-Status"] = []string{strconv.Itoa(code)}
	h["Grpc-Message"] = []string{grpcText(message)}
	w.WriteHeader(http.StatusOK)
}

// grpcText escapes a message as the gRPC protocol requires.
func grpcText(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
			continue
		}
		b.WriteString("%" + strings.ToUpper(strconv.FormatUint(uint64(c)+0x100, 16)[1:]))
	}
	return b.String()
}
