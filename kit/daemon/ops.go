package daemon

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/kit/telemetry"
)

// Router is where parts add resources to the operations listener.
type Router = *gin.Engine

// opsDrain is how long requests of operators may finish. The listener is the last to stop and must not make the stop late.
const opsDrain = 300 * time.Millisecond

// newOpsListener binds the operations listener.
func newOpsListener(cfg *Config, env *Env) (Part, error) {
	addr, err := cfg.Listen("ops.listen", cfg.OpsListen)
	if err != nil {
		return nil, err
	}
	// On loopback nobody listens in, and those who ask for health and metrics need not be taught whom to trust.
	srv, err := env.listen("ops", addr, http.HandlerFunc(env.serveOps), opsLimits(), env.Certs != nil && !onLoopback(addr))
	if err != nil {
		return nil, err
	}
	w := NewWorkers("ops listener")
	w.Add("serve", func(ctx context.Context) error { return srv.Run(ctx, func() time.Duration { return opsDrain }) })
	w.Add("memory", telemetry.TuneGC)
	return w, nil
}
