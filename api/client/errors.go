package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/openmep/mep/api/problem"

	"github.com/openmep/mep/api/internal/retry"
)

// Error is an error response of the platform. It wraps the problem document, for errors.As.
type Error struct {
	// Method and Path are those of the request.
	Method, Path string
	// Problem is the problem document that the platform sent, or a substitute if the body was something else. Its Status is the
	// HTTP status.
	Problem *problem.Details
	// RetryAfter is how long the platform asks to wait before the request is repeated, 0 when it did not say.
	RetryAfter time.Duration
}

// Error names the request, the status and the reason.
func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: %d %s", e.Method, e.Path, e.Problem.Status, e.Problem.Error())
}

// Unwrap returns the problem document.
func (e *Error) Unwrap() error { return e.Problem }

// Status returns the HTTP status of the response.
func (e *Error) Status() int { return e.Problem.Status }

// IsNotFound reports whether err is a 404 response: there is no such app, or it has no such service, subscription or rule.
func IsNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// IsConflict reports whether err is a 409 response: the state of the resource forbids the request.
func IsConflict(err error) bool { return hasStatus(err, http.StatusConflict) }

// IsPreconditionFailed reports whether err is a 412 response: the resource does not have the entity-tag given to IfMatch.
func IsPreconditionFailed(err error) bool { return hasStatus(err, http.StatusPreconditionFailed) }

func hasStatus(err error, status int) bool {
	p, ok := errors.AsType[*problem.Details](err)
	return ok && p.Status == status
}

func newError(resp *http.Response) *Error {
	e := &Error{
		Method: resp.Request.Method, Path: resp.Request.URL.EscapedPath(),
		Problem: &problem.Details{}, RetryAfter: retry.After(resp.Header.Get("Retry-After")),
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // a partial body is more informative than the read error
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mt != problem.ContentType || json.Unmarshal(body, e.Problem) != nil {
		e.Problem = &problem.Details{Detail: "the answer carries no problem document: is a MEC platform there?"}
	}
	if e.Problem.Title == "" {
		e.Problem.Title = http.StatusText(resp.StatusCode)
	}
	e.Problem.Status = resp.StatusCode
	return e
}
