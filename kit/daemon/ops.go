package daemon

import (
	"context"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/ops"
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
	limits := httpx.Limits{Connections: 256}.WithDefaults()
	env.Ops = httpx.NewRouter("ops", env.Log, env.HTTP, func() httpx.Limits { return limits })
	ops.Mount(env.Ops, env.Health, env.Metrics, cfg.Dev)
	srv, err := httpx.Listen("ops", addr, env.Ops, limits, nil, env.Log)
	if err != nil {
		return nil, err
	}
	env.Health.Listener("ops", srv.URL())
	w := NewWorkers("ops listener")
	w.Add("serve", func(ctx context.Context) error { return srv.Run(ctx, opsDrain) })
	w.Add("memory", telemetry.TuneGC)
	return w, nil
}
