package httpx

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/bind"
	"github.com/openmep/mep/kit/errs"
)

// Checker is a request body that can report everything that is wrong with it.
type Checker interface {
	Check(*problem.InvalidParams)
}

// Body decodes the request's JSON body into dst and checks it. All faults are reported in one error of the kind errs.Invalid;
// other kinds are errs.TooLarge and errs.UnsupportedMediaType. A missing Content-Type is taken for JSON; alsoTypes are further
// media types to accept.
func Body(c *gin.Context, dst Checker, alsoTypes ...string) error {
	return BodyFunc(c, dst, dst.Check, alsoTypes...)
}

// BodyFunc is like Body, for a value that a function checks.
func BodyFunc(c *gin.Context, dst any, check func(*problem.InvalidParams), alsoTypes ...string) error {
	if ct := c.Request.Header.Get("Content-Type"); ct != "" {
		mt, _, err := mime.ParseMediaType(ct)
		if err != nil || (mt != "application/json" && !slices.Contains(alsoTypes, mt)) {
			return errs.New(errs.UnsupportedMediaType, "Content-Type %q is not taken here: send %s",
				ct, strings.Join(append([]string{"application/json"}, alsoTypes...), " or "))
		}
	}
	data, err := readAll(c.Request)
	if err != nil {
		return err
	}
	var faults problem.InvalidParams
	if err := bind.JSON(data, dst, &faults); err != nil {
		if syn, ok := errors.AsType[*bind.SyntaxError](err); ok {
			return errs.New(errs.Invalid, "%s", syn.Error())
		}
		return err
	}
	if len(faults) < bind.MaxFaults {
		check(&faults)
	}
	return errs.Params(faults)
}

// ReadBody reads the whole body of a request. The error is of the kind errs.TooLarge or errs.Invalid.
func ReadBody(c *gin.Context) ([]byte, error) { return readAll(c.Request) }

func readAll(r *http.Request) ([]byte, error) {
	var data []byte
	var err error
	if n := r.ContentLength; n >= 0 && n <= 64<<10 {
		data = make([]byte, n)
		_, err = io.ReadFull(r.Body, data)
	} else {
		data, err = io.ReadAll(r.Body)
	}
	if err == nil {
		return data, nil
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, errs.New(errs.TooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	return nil, errs.Wrap(errs.Invalid, err, "the body could not be read to its end")
}

// NoQuery refuses query parameters, for resources that define none.
func NoQuery(c *gin.Context) error {
	if c.Request.URL.RawQuery == "" {
		return nil
	}
	name, _, _ := strings.Cut(c.Request.URL.RawQuery, "=")
	return errs.New(errs.Invalid, "this resource takes no query parameters, but %q was given", ParamName(name))
}

// ParamName returns the name of a query parameter as it may be repeated in a response and in the log. What does not look like a
// name may be a secret in the wrong place, and is left out.
func ParamName(name string) string {
	if len(name) > 32 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) {
		return "…"
	}
	return name
}
