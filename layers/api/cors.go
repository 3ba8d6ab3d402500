package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"gochat/layers/internal/httpd"
)

// cors lets the pages of the host that is asked, served from any of its ports, and of the origins named read what
// we answer. Tokens travel in a header that no other page can send, so there is nothing more to guard, and
// credentials in the sense of cookies are never allowed.
func cors(allowed []string) gin.HandlerFunc {
	return func(c *gin.Context) {
		h := c.Writer.Header()
		h.Add("Vary", "Origin")
		origin := c.GetHeader("Origin")
		if origin == "" {
			return
		}
		preflight := c.Request.Method == http.MethodOptions && c.GetHeader("Access-Control-Request-Method") != ""
		if httpd.OriginAllowed(c.Request, allowed) {
			h.Set("Access-Control-Allow-Origin", origin)
			if preflight {
				h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE")
				h.Set("Access-Control-Allow-Headers", "content-type, authorization, traceparent")
				h.Set("Access-Control-Max-Age", "600")
			} else {
				h.Set("Access-Control-Expose-Headers", "traceparent, retry-after")
			}
		}
		if preflight {
			c.AbortWithStatus(http.StatusOK) // the browser reads the headers, not the status
		}
	}
}
