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

// Handler is a handler that returns its failure instead of rendering it.
type Handler func(*gin.Context) error

// Handle adapts a Handler. A returned error is rendered by Fail.
func Handle(h Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := h(c); err != nil {
			Fail(c, err)
		}
	}
}

// errorKey is where Fail leaves the error for the request log.
const errorKey = "mep.error"

// Refused leaves an error for the request log that the handler renders itself.
func Refused(c *gin.Context, err error) { c.Set(errorKey, err) }

// Fail renders an error as a problem document and ends the chain. Errors without a kind are internal: the client sees the
// request's id, the log sees the cause.
func Fail(c *gin.Context, err error) {
	c.Set(errorKey, err)
	kind := errs.KindOf(err)
	doc := problem.Details{Title: kind.Title(), Status: kind.Status(), Instance: RequestID(c)}
	var e *errs.Error
	switch {
	case errors.As(err, &e):
		doc.Detail, doc.InvalidParams = e.Detail, e.Params
		if e.RetryAfter > 0 {
			c.Header("Retry-After", retryAfter(e.RetryAfter))
		}
	case kind != errs.Internal:
		doc.Detail = kind.Title()
	}
	if kind == errs.Internal {
		doc.Detail = "something went wrong inside the platform; its operator finds the cause under request id " + doc.Instance
		doc.InvalidParams = nil
	}
	c.Abort()
	if c.Writer.Written() {
		return
	}
	body, merr := json.Marshal(doc)
	if merr != nil {
		c.Status(http.StatusInternalServerError)
		return
	}
	h := c.Writer.Header()
	h.Del("ETag")
	h["Content-Type"] = []string{problem.ContentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["Cache-Control"] = []string{"no-store"}
	c.Writer.WriteHeader(doc.Status)
	_, _ = c.Writer.Write(body)
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

// Raw writes a body that is JSON already.
func Raw(c *gin.Context, status int, body []byte) {
	h := c.Writer.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	c.Writer.WriteHeader(status)
	_, _ = c.Writer.Write(body)
}

// NoContent answers 204.
func NoContent(c *gin.Context) { c.Writer.WriteHeader(http.StatusNoContent) }
