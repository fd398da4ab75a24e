package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepauth/credential"
)

// Confs has the handlers of credential management.
type Confs struct {
	// Book changes credentials.
	Book *credential.Book
	// Audit records who changed what.
	Audit *audit.Log
	// Overlap returns how long the previous secret key stays valid unless the request says otherwise.
	Overlap func() time.Duration
	// Mirrors must show a change before the response is sent.
	Mirrors []*watched.Mirror
	// Store provides the revision that the mirrors must reach.
	Store *etcd.Store
}

// Mount adds the routes to r, which must admit only callers with the scope mm5.
func (m *Confs) Mount(r gin.IRoutes) {
	const root = "/mep/appMng/v1/applications"
	const confs = root + "/:appInstanceId/confs"
	r.GET(root, httpx.Handle(m.list))
	r.PUT(confs, m.audited("credential.put", m.put))
	r.GET(confs, httpx.Handle(m.get))
	r.PATCH(confs, m.audited("credential.change", m.patch))
	r.DELETE(confs, m.audited("credential.delete", m.remove))
	r.POST(confs+"/rotate", m.audited("credential.rotate", m.rotate))
}

// audited records in the audit log who did what, with what result. The handler returns the detail of
// the entry.
func (m *Confs) audited(action string, h func(*gin.Context) (detail string, err error)) gin.HandlerFunc {
	return identity.Audited(m.Audit, action, "appInstanceId", func(c *gin.Context) (string, error) {
		if err := httpx.NoQuery(c); err != nil {
			return "", err
		}
		return h(c)
	})
}

// appID returns the application instance id of the path, a UUID.
func appID(c *gin.Context) (string, error) {
	id := identity.CanonicalID(c.Param("appInstanceId"))
	if len(id) != 36 || uuid.Validate(id) != nil {
		return "", errs.New(errs.NotFound, "%q is not the id of an application instance: it is a UUID", id)
	}
	return id, nil
}

// settle waits until this process's mirrors show the change.
func (m *Confs) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	revision, err := m.Store.Revision(ctx, state.Root)
	if err != nil {
		return // the change is durable; the mirrors will catch up
	}
	for _, mirror := range m.Mirrors {
		_ = mirror.WaitRevision(ctx, revision)
	}
}

func (m *Confs) put(c *gin.Context) (string, error) {
	id, err := appID(c)
	if err != nil {
		return "", err
	}
	var body auth.Confs
	if err := httpx.Body(c, &body); err != nil {
		return "", err
	}
	ctx := c.Request.Context()
	made, err := m.Book.PutApp(ctx, credential.Wanted{
		Subject: id, Name: body.AppInfo.AppName, Scopes: []string{state.ScopeMp1},
		AccessKeyID: body.AuthInfo.Credentials.AccessKeyID, SecretKey: string(body.AuthInfo.Credentials.SecretKey),
		Requires: body.AppInfo.RequiredServices, RefreshTokens: body.AuthInfo.RefreshTokens,
		BindClientAddress: body.AuthInfo.BindClientAddress,
	})
	if err != nil {
		return "", err
	}
	m.settle(ctx)
	body.AuthInfo.Credentials = auth.KeyPair{AccessKeyID: made.AccessKeyID, SecretKey: auth.Secret(made.SecretKey)}
	return "access key " + made.AccessKeyID, httpx.JSON(c, http.StatusOK, body)
}

// recordOf converts a credential to its representation in the API.
func recordOf(k *credential.Known) auth.ConfsRecord {
	r := auth.ConfsRecord{
		AppInstanceID: k.Credential.Subject, AccessKeyID: k.AccessKeyID, AppName: k.Credential.Name,
		RequiredServices: k.Requires, Enabled: !k.Credential.Disabled, RefreshTokens: k.Credential.RefreshTokens,
		BindClientAddress: k.Credential.BindClientAddress, Created: k.Credential.Created, Changed: k.Credential.Changed,
		Secrets: []auth.SecretInfo{},
	}
	for _, s := range k.Secrets {
		info := auth.SecretInfo{ID: s.ID, Created: s.Created}
		if !s.Expires.IsZero() {
			info.Expires = &s.Expires
		}
		r.Secrets = append(r.Secrets, info)
	}
	return r
}

func (m *Confs) list(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	all, err := m.Book.List(c.Request.Context())
	if err != nil {
		return err
	}
	list := []auth.ConfsRecord{}
	for i := range all {
		// Managers are not applications.
		if uuid.Validate(all[i].Credential.Subject) == nil {
			list = append(list, recordOf(&all[i]))
		}
	}
	return httpx.JSON(c, http.StatusOK, list)
}

func (m *Confs) get(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	id, err := appID(c)
	if err != nil {
		return err
	}
	known, err := m.Book.Of(c.Request.Context(), id, "")
	if err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, recordOf(known))
}

func (m *Confs) patch(c *gin.Context) (string, error) {
	id, err := appID(c)
	if err != nil {
		return "", err
	}
	var body auth.ConfsPatch
	if err := httpx.Body(c, &body, "application/merge-patch+json"); err != nil {
		return "", err
	}
	ctx := c.Request.Context()
	known, err := m.Book.Change(ctx, id, "", func(rec *state.Credential) {
		if body.Enabled != nil {
			rec.Disabled = !*body.Enabled
		}
		if body.RefreshTokens != nil {
			rec.RefreshTokens = *body.RefreshTokens
		}
		if body.BindClientAddress != nil {
			rec.BindClientAddress = *body.BindClientAddress
		}
	})
	if err != nil {
		return "", err
	}
	m.settle(ctx)
	what, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	return "access key " + known.AccessKeyID + " " + string(what), httpx.JSON(c, http.StatusOK, recordOf(known))
}

func (m *Confs) remove(c *gin.Context) (string, error) {
	id, err := appID(c)
	if err != nil {
		return "", err
	}
	ctx := c.Request.Context()
	gone, err := m.Book.Delete(ctx, id, "")
	if err != nil {
		return "", err
	}
	m.settle(ctx)
	return "access key " + gone[0], httpx.JSON(c, http.StatusOK, "the credentials of "+id+" are deleted, and its tokens revoked")
}

func (m *Confs) rotate(c *gin.Context) (string, error) {
	id, err := appID(c)
	if err != nil {
		return "", err
	}
	var body auth.Rotation
	if c.Request.ContentLength != 0 {
		if err := httpx.Body(c, &body); err != nil {
			return "", err
		}
	}
	overlap := m.Overlap()
	if body.OverlapSeconds != nil {
		overlap = time.Duration(*body.OverlapSeconds) * time.Second
	}
	ctx := c.Request.Context()
	made, err := m.Book.Rotate(ctx, id, "", string(body.SecretKey), overlap)
	if err != nil {
		return "", err
	}
	m.settle(ctx)
	res := auth.RotationResult{AccessKeyID: made.AccessKeyID, SecretKey: auth.Secret(made.SecretKey)}
	res.PreviousExpires = made.Secrets[0].Created
	if len(made.Secrets) > 1 {
		res.PreviousExpires = made.Secrets[1].Expires
	}
	return "access key " + made.AccessKeyID + ", the previous secret is good until " + res.PreviousExpires.Format(time.RFC3339),
		httpx.JSON(c, http.StatusOK, res)
}
