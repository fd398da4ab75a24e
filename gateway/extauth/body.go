package extauth

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/openmep/mep/kit/errs"
)

// Body reads the body of a request as far as the policy sends bodies, and restores it, so that the request still has its whole body and can
// be repeated. ContentLength is unchanged. Body waits for the end of the body.
//
// It returns nil if the policy sends no bodies or the request has none, errs.TooLarge if the body is larger than the policy allows, and
// errs.Invalid if it cannot be read.
func (a *Authoriser) Body(r *http.Request) ([]byte, error) {
	limit := a.policy.Body
	if limit <= 0 || r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	tooLarge := errs.New(errs.TooLarge, "the body must not be larger than %d bytes: all of it is checked", limit)
	if r.ContentLength > int64(limit) {
		return nil, tooLarge
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	if err != nil {
		if _, exceeded := errors.AsType[*http.MaxBytesError](err); exceeded {
			return nil, errs.Wrap(errs.TooLarge, err, "the body is too large")
		}
		if ended := r.Context().Err(); ended != nil {
			return nil, ended
		}
		return nil, errs.Wrap(errs.Invalid, err, "the body could not be read")
	}
	if len(data) > limit {
		return nil, tooLarge
	}
	// Reading on from the original body reaches its end, and with it the trailers.
	r.Body = &restored{Reader: io.MultiReader(bytes.NewReader(data), r.Body), Closer: r.Body}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return data, nil
}

// restored is a body whose beginning has been put back.
type restored struct {
	io.Reader
	io.Closer
}
