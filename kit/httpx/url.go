package httpx

import (
	"strings"

	"github.com/gin-gonic/gin"
)

// BaseURL returns the start of the hrefs in a response: the public URL if there is one, else the scheme and host of the request,
// or own if the request names no usable host.
func BaseURL(c *gin.Context, public, own string) string {
	if public != "" {
		return public
	}
	if !plainHost(c.Request.Host) {
		return own
	}
	if c.Request.TLS != nil {
		return "https://" + c.Request.Host
	}
	return "http://" + c.Request.Host
}

// plainHost reports whether the host in a request can be repeated in a response as it is. HTTP/1.0 clients may name none, and
// the request line may hold anything.
func plainHost(host string) bool {
	for _, c := range []byte(host) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune(".-_:[]", rune(c)) {
			return false
		}
	}
	return host != ""
}
