package daemon

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/kit/telemetry"
)

// Router is the router of a listener, to which parts add resources.
type Router = *gin.Engine

// opsDrain is how long requests of operators may take to finish. The listener stops last and must not delay the stop.
const opsDrain = 300 * time.Millisecond

// newOpsListener binds the operations listener.
func newOpsListener(cfg *Config, env *Env) (Part, error) {
	addr, err := cfg.Listen("ops.listen", cfg.OpsListen)
	if err != nil {
		return nil, err
	}
	// Nobody can listen in on loopback, and clients that read health and metrics there need no CA certificate.
	srv, err := env.listen("ops", addr, http.HandlerFunc(env.serveOps), opsLimits(), env.Certs != nil && !onLoopback(addr))
	if err != nil {
		return nil, err
	}
	w := NewWorkers("ops listener")
	w.Add("serve", func(ctx context.Context) error { return srv.Run(ctx, func() time.Duration { return opsDrain }) })
	w.Add("memory", telemetry.TuneGC)
	return w, nil
}
