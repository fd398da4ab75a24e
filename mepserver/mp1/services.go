package mp1

import (
	"io"
	"iter"
	"net/http"
	"strconv"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/mepserver/registry"
)

func (m *mount) discover(c *gin.Context) error {
	q, err := parseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return err
	}
	snap, by := m.Registry.Services().Snapshot(), m.reader(c)
	if !q.All() || !by.SeesAll() {
		return m.list(c, m.Registry.Discover(snap, by, q), nil)
	}
	key := listKey{state: snap, view: m.view(c)}
	if body := m.lists.find(key); body != nil {
		httpx.Raw(c, http.StatusOK, body)
		return nil
	}
	return m.list(c, m.Registry.Discover(snap, by, q), &key)
}

func (m *mount) ownServices(c *gin.Context) error {
	q, err := parseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return err
	}
	return m.list(c, m.Registry.DiscoverOwn(appID(c), q), nil)
}

// listBuffer holds the buffers for writing a list, reused between requests.
type listBuffer struct {
	services []*registry.Service
	out      []byte
}

var listBuffers = sync.Pool{New: func() any { return &listBuffer{out: make([]byte, 0, chunk+4096)} }}

// chunk is the approximate number of bytes of a list written to the connection at a time.
const chunk = 64 << 10

// list writes services as a JSON array, holding no more than about a chunk of it in memory. With a key the list may be
// cached for the next request.
func (m *mount) list(c *gin.Context, services iter.Seq[*registry.Item], key *listKey) error {
	b := listBuffers.Get().(*listBuffer)
	defer b.release()
	view := m.view(c)
	size := len("[]")
	for item := range services {
		size += item.Value.JSONLen(view) + 1
		b.services = append(b.services, item.Value)
	}
	if len(b.services) > 0 {
		size-- // one comma fewer than services
	}
	if key != nil {
		if body := m.lists.keep(*key, size, func(dst []byte) []byte { return b.render(dst, view, nil) }); body != nil {
			httpx.Raw(c, http.StatusOK, body)
			return nil
		}
	}
	h := c.Writer.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(size)}
	c.Writer.WriteHeader(http.StatusOK)
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return nil
	}
	b.out = b.render(b.out, view, c.Writer)
	_, _ = c.Writer.Write(b.out)
	return nil
}

// render appends the services to dst as a JSON array. If w is not nil, render writes out each full chunk and stops when
// a write fails.
func (b *listBuffer) render(dst []byte, view registry.View, w io.Writer) []byte {
	dst = append(dst, '[')
	for i, svc := range b.services {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = svc.AppendJSON(dst, view)
		if w != nil && len(dst) >= chunk {
			if _, err := w.Write(dst); err != nil {
				return dst[:0]
			}
			dst = dst[:0]
		}
	}
	return append(dst, ']')
}

func (b *listBuffer) release() {
	clear(b.services)
	b.services, b.out = b.services[:0], b.out[:0]
	listBuffers.Put(b)
}

var jsonType = []string{"application/json"}

// view returns how services are shown to the caller.
func (m *mount) view(c *gin.Context) registry.View {
	v := registry.View{Base: m.base(c)}
	if v.Gateway = m.Gateway(); v.Gateway.URL != "" {
		// Below its own path an app is its own reader, in development mode too.
		if v.Owner = identity.Subject(c); v.Owner == "" {
			v.Owner = c.Param("appInstanceId")
		}
	}
	return v
}

// one writes a single service.
func (m *mount) one(c *gin.Context, status int, svc *registry.Service) {
	b := listBuffers.Get().(*listBuffer)
	b.out = svc.AppendJSON(b.out, m.view(c))
	httpx.SetETag(c, svc.ETag())
	httpx.Raw(c, status, b.out)
	b.out = b.out[:0]
	listBuffers.Put(b)
}

// read answers the GET of a service.
func (m *mount) read(c *gin.Context, item *registry.Item, err error) error {
	if err == nil {
		err = httpx.NoQuery(c)
	}
	if err != nil {
		return err
	}
	if !httpx.NotModified(c, item.Value.ETag()) {
		m.one(c, http.StatusOK, item.Value)
	}
	return nil
}

func (m *mount) service(c *gin.Context) error {
	item, err := m.Registry.Get(m.reader(c), serviceID(c))
	return m.read(c, item, err)
}

func (m *mount) ownService(c *gin.Context) error {
	item, err := m.Registry.GetOwn(appID(c), serviceID(c))
	return m.read(c, item, err)
}

func (m *mount) register(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	var info mp1.ServiceInfo
	if err := httpx.Body(c, &info); err != nil {
		return err
	}
	if info.SerInstanceID != "" && m.prefix != m.EdgeGalleryPrefix {
		var p problem.InvalidParams
		p.Add("serInstanceId", "must be absent: the platform assigns it")
		return errs.Params(p)
	}
	item, err := m.Registry.Register(c.Request.Context(), appID(c), info)
	if err != nil {
		return err
	}
	c.Header("Location", m.base(c)+item.Value.Path())
	m.one(c, http.StatusCreated, item.Value)
	return nil
}

func (m *mount) replace(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	// Whether the service can be changed is checked before the body is.
	item, err := m.Registry.ForWrite(appID(c), serviceID(c))
	if err != nil {
		return err
	}
	var info mp1.ServiceInfo
	if err := httpx.Body(c, &info); err != nil {
		return err
	}
	var faults problem.InvalidParams
	if info.SerInstanceID != "" && info.SerInstanceID != item.Value.ID {
		faults.Add("serInstanceId", "must be absent or the id in the path")
	}
	if info.TransportInfo == nil {
		faults.Add("transportInfo", "is required: only a registration may name a transport of the platform instead")
	}
	if err := errs.Params(faults); err != nil {
		return err
	}
	item, err = m.Registry.Replace(c.Request.Context(), appID(c), serviceID(c), info, ifMatch(c))
	if err != nil {
		return err
	}
	m.Monitor.Heard(item)
	m.one(c, http.StatusOK, item.Value)
	return nil
}

func (m *mount) remove(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	if err := m.Registry.Remove(c.Request.Context(), appID(c), serviceID(c), ifMatch(c)); err != nil {
		return err
	}
	httpx.NoContent(c)
	return nil
}
