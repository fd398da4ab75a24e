package mp1

import (
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/mepserver/registry"
)

// livenessETag returns an entity-tag that changes with everything the liveness resource shows.
func livenessETag(i mp1.ServiceLivenessInfo) string {
	return fmt.Sprintf(`"%s-%d-%x.%x"`, i.State[:1], i.Interval, i.TimeStamp.Seconds, i.TimeStamp.NanoSeconds)
}

func (m *mount) livenessInfo(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	item, err := m.Registry.GetOwn(appID(c), serviceID(c))
	if err != nil {
		return err
	}
	info, err := m.Monitor.Info(item)
	if err != nil {
		return err
	}
	etag := livenessETag(info)
	if httpx.NotModified(c, etag) {
		return nil
	}
	httpx.SetETag(c, etag)
	return httpx.JSON(c, http.StatusOK, info)
}

func (m *mount) heartbeat(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	var update mp1.ServiceLivenessUpdate
	if err := httpx.Body(c, &update, "application/merge-patch+json"); err != nil {
		return err
	}
	item, imposed, err := m.Monitor.Beat(c.Request.Context(), appID(c), serviceID(c), func(item *registry.Item) error {
		if len(c.Request.Header["If-Match"]) == 0 {
			return nil
		}
		info, err := m.Monitor.Info(item)
		if err != nil {
			return err
		}
		return httpx.IfMatch(c, livenessETag(info))
	})
	if err != nil {
		return err
	}
	info, err := m.Monitor.Info(item)
	if err != nil {
		return err
	}
	httpx.SetETag(c, livenessETag(info))
	if imposed {
		return httpx.JSON(c, http.StatusOK, info)
	}
	httpx.NoContent(c)
	return nil
}
