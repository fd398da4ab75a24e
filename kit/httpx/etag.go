package httpx

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/kit/errs"
)

// SetETag sets the ETag of the response; etag includes its quotes.
func SetETag(c *gin.Context, etag string) { c.Writer.Header()["Etag"] = []string{etag} }

// IfMatch fails with errs.PreconditionFailed if the request has an If-Match that does not match etag. A value that is
// not an entity-tag never matches (RFC 9110 13.1.1).
func IfMatch(c *gin.Context, etag string) error {
	values := c.Request.Header.Values("If-Match")
	if len(values) == 0 {
		return nil
	}
	for _, v := range values {
		if matches(v, etag, false) {
			return nil
		}
	}
	return errs.New(errs.PreconditionFailed,
		"If-Match does not hold: the resource's entity-tag is %s; read the resource again and repeat the change on what it holds now", etag)
}

// NotModified responds with 304 and returns true if the request has an If-None-Match that matches etag.
func NotModified(c *gin.Context, etag string) bool {
	values := c.Request.Header["If-None-Match"]
	for _, v := range values {
		if matches(v, etag, true) {
			SetETag(c, etag)
			c.Writer.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// matches reports whether a list of entity-tags has etag, compared strongly or weakly (RFC 9110 8.8.3.2).
func matches(list, etag string, weak bool) bool {
	for t := range strings.SplitSeq(list, ",") {
		t = strings.TrimSpace(t)
		if t == "*" {
			return true
		}
		if weak {
			if strings.TrimPrefix(t, "W/") == strings.TrimPrefix(etag, "W/") {
				return true
			}
		} else if t == etag && !strings.HasPrefix(t, "W/") {
			return true
		}
	}
	return false
}
