package httpx

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
)

// Handler is a handler that returns its error instead of rendering it.
type Handler func(*gin.Context) error

// Handle adapts a Handler. Fail renders an error that it returns.
func Handle(h Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := h(c); err != nil {
			Fail(c, err)
		}
	}
}

// errorKey is the context key of the error for the request log.
const errorKey = "mep.error"

// Refused leaves an error, which the handler renders itself, for the request log.
func Refused(c *gin.Context, err error) { c.Set(errorKey, err) }

// Fail renders an error as a problem document and ends the chain. Errors without a kind are internal: the client sees the
// request's id, the log sees the cause.
func Fail(c *gin.Context, err error) {
	c.Set(errorKey, err)
	c.Abort()
	if c.Writer.Written() {
		if e, ok := errors.AsType[*errs.Error](err); ok && e.RetryAfter > 0 {
			c.Header("Retry-After", retryAfter(e.RetryAfter))
		}
		return
	}
	c.Writer.Header().Del("ETag")
	Problem(c.Writer, RequestID(c), err)
}

// Problem responds with an error as a problem document; instance is the id of the request. Nothing may have been written yet.
func Problem(w http.ResponseWriter, instance string, err error) {
	kind := errs.KindOf(err)
	doc := problem.Details{Title: kind.Title(), Status: kind.Status(), Instance: instance}
	h := w.Header()
	if e, ok := errors.AsType[*errs.Error](err); ok {
		doc.Detail, doc.InvalidParams = e.Detail, e.Params
		if e.RetryAfter > 0 {
			h.Set("Retry-After", retryAfter(e.RetryAfter))
		}
	} else {
		doc.Detail = kind.Title()
	}
	if kind == errs.Internal {
		doc.Detail = "something went wrong inside the platform; its operator finds the cause under request id " + instance
		doc.InvalidParams = nil
	}
	WriteProblem(w, &doc)
}

// WriteProblem responds with a problem document.
func WriteProblem(w http.ResponseWriter, doc *problem.Details) {
	body, err := json.Marshal(doc)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h["Content-Type"] = []string{problem.ContentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["Cache-Control"] = []string{"no-store"}
	w.WriteHeader(doc.Status)
	_, _ = w.Write(body)
}

func retryAfter(d time.Duration) string {
	return strconv.Itoa(int(math.Ceil(d.Seconds())))
}

var jsonType = []string{"application/json"}

// JSON writes v with the status.
func JSON(c *gin.Context, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	Raw(c, status, body)
	return nil
}

// Raw writes a body that is already JSON.
func Raw(c *gin.Context, status int, body []byte) {
	h := c.Writer.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	c.Writer.WriteHeader(status)
	_, _ = c.Writer.Write(body)
}

// NoContent responds with 204.
func NoContent(c *gin.Context) { c.Writer.WriteHeader(http.StatusNoContent) }
