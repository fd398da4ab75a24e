package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/kit/run"
	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/kit/telemetry"
)

// Part is a component of a program. A new part is wired and bound but idle; Start sets it to work. Stop ends it within its context's
// deadline, and may be called more than once.
type Part interface {
	// Name returns the name shown in the log.
	Name() string
	// Start begins the work and returns at once.
	Start(ctx context.Context)
	// Failed returns a channel that is closed when the part cannot go on; Err then says why.
	Failed() <-chan struct{}
	Err() error
	// Stop ends the part.
	Stop(ctx context.Context) error
}

// Program holds the parts of a program.
type Program[C any] struct {
	// Parts are started in this order and stopped in reverse.
	Parts []Part
	// Prepare does all that can fail with a new configuration and returns a function that applies it. What all programs share is
	// prepared already, and the Identity of Env.Common is that of the new configuration. It may be nil.
	Prepare func(*C) (apply func(), err error)
}

// Spec describes a program.
type Spec[C any] struct {
	// Name is the name of the program.
	Name string
	// Short is a one-line description.
	Short string
	// RunByDefault makes the program run without the command "run".
	RunByDefault bool
	// Common returns the common settings within the configuration.
	Common func(*C) *Config
	// Validate checks the configuration; the common settings have been checked already.
	Validate func(*C) error
	// Advise returns faults of a valid configuration that do not keep the program from working, because only the faulty item is
	// refused: "validate" reports them. It may be nil.
	Advise func(*C) error
	// Listeners returns the configured addresses of the listeners, except the operations listener, and their public URLs. Certificates
	// are issued for them.
	Listeners func(*C) []string
	// Commands are further commands of the program.
	Commands []*cobra.Command
	// Build builds the program. If it fails, it has released what it acquired.
	Build func(ctx context.Context, cfg *C, env *Env) (*Program[C], error)
}

// Load reads the configuration from all sources and checks it.
func (s *Spec[C]) Load(src settings.Sources) (*C, error) {
	cfg := new(C)
	if err := settings.Load(cfg, src, func() bool { return s.Common(cfg).Dev }); err != nil {
		return nil, err
	}
	if err := errors.Join(s.Common(cfg).Validate(), s.Validate(cfg)); err != nil {
		return nil, err
	}
	return cfg, nil
}

// Run runs the program until it is stopped by SIGTERM, SIGINT or the context, when it returns nil, or until a part fails. SIGHUP reads
// the configuration again.
func (s *Spec[C]) Run(ctx context.Context, src settings.Sources, stderr io.Writer) (err error) {
	cfg, err := s.Load(src)
	if err != nil {
		return err
	}
	common := s.Common(cfg)
	log, err := telemetry.NewLog(stderr, common.LogFormat, common.LogLevel)
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// The process that reads the log may end before the platform does.
	signal.Ignore(syscall.SIGPIPE)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	env, err := NewEnv(ctx, common, s.Name, append(s.Listeners(cfg), common.OpsListen), log.Logger,
		telemetry.NewRegistry(Version))
	if err != nil {
		return err
	}
	opsPart, err := newOpsListener(common, env)
	if err != nil {
		return errors.Join(err, env.Audit.Close())
	}
	// The operations listener answers while the others are still being made.
	env.Health.Check("process", func() (string, string) { return "is starting", "" })
	opsPart.Start(ctx)
	parts := []Part{Closer("audit stream", env.Audit.Close), Closer("traces", func() error {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if terr := env.Tracer.Close(last); terr != nil {
			env.Log.Warn("some traces were not sent", "error", terr)
		}
		return nil
	}), opsPart}
	if env.Certs != nil {
		certs := NewWorkers("certificates")
		certs.Add("renew and reload", env.Certs.Run)
		certs.Start(ctx)
		parts = append(parts, certs)
	}
	defer func() { err = errors.Join(err, stopAll(env, parts)) }()
	env.Log.Info("starting", "program", s.Name, "version", Version, "dev", common.Dev, "data_dir", common.DataDir)
	program, err := s.Build(ctx, cfg, env)
	if err != nil {
		return err
	}
	env.opsNow.Store(env.Ops)
	parts = append(parts, program.Parts...)
	for _, p := range program.Parts {
		p.Start(ctx)
	}
	env.Health.Check("process", func() (string, string) { return "", "" })
	for name, url := range env.Health.Listeners() {
		env.Log.Info("listening", "listener", name, "url", url)
	}
	return s.wait(ctx, hup, cfg, src, log, env, program, parts)
}

func (s *Spec[C]) wait(ctx context.Context, hup <-chan os.Signal, cfg *C, src settings.Sources, log *telemetry.Log,
	env *Env, program *Program[C], parts []Part,
) error {
	failed := make(chan Part, len(parts))
	for _, p := range parts {
		go func() {
			select {
			case <-p.Failed():
				failed <- p
			case <-ctx.Done():
			}
		}()
	}
	for {
		select {
		case <-ctx.Done():
			log.Info("stopping")
			return nil
		case p := <-failed:
			return fmt.Errorf("%s failed: %w", p.Name(), p.Err())
		case <-hup:
			env.reopen()
			next, err := s.reload(cfg, src, log, env, program)
			if err != nil {
				log.Error("configuration not reloaded, the present one stays in force", "error", err)
				continue
			}
			cfg = next
		}
	}
}

// stopAll stops the parts in the reverse order of their start.
func stopAll(env *Env, parts []Part) error {
	env.Health.Stopping()
	ctx, cancel := context.WithTimeout(context.Background(), env.Drain()+1500*time.Millisecond)
	defer cancel()
	var faults []error
	for _, p := range slices.Backward(parts) {
		if err := p.Stop(ctx); err != nil {
			faults = append(faults, fmt.Errorf("stop %s: %w", p.Name(), err))
		}
	}
	env.Log.Info("stopped")
	return errors.Join(faults...)
}

// Workers is a Part made of goroutines that end together.
type Workers struct {
	name  string
	work  map[string]func(context.Context) error
	order []string
	group *run.Group
}

// NewWorkers returns a part without workers.
func NewWorkers(name string) *Workers {
	return &Workers{name: name, work: make(map[string]func(context.Context) error)}
}

// Add adds a worker. Call it before Start.
func (w *Workers) Add(name string, work func(context.Context) error) {
	w.order = append(w.order, name)
	w.work[name] = work
}

// Name implements Part.
func (w *Workers) Name() string { return w.name }

// Start implements Part. The workers end with Stop and not with ctx, so that parts end in order.
func (w *Workers) Start(ctx context.Context) {
	w.group = run.NewGroup(context.WithoutCancel(ctx))
	for _, name := range w.order {
		w.group.Go(name, w.work[name])
	}
}

// Failed implements Part.
func (w *Workers) Failed() <-chan struct{} { return w.group.Failed() }

// Err implements Part.
func (w *Workers) Err() error { return w.group.Err() }

// Stop implements Part.
func (w *Workers) Stop(ctx context.Context) error {
	if w.group == nil {
		return nil
	}
	return w.group.Stop(ctx)
}

// Listeners returns a part that serves several listeners, keyed by name. They stop concurrently, each draining its connections in its
// own time.
func Listeners(serve map[string]func(context.Context) error) *Workers {
	w := NewWorkers("listeners")
	for _, name := range slices.Sorted(maps.Keys(serve)) {
		w.Add(name, serve[name])
	}
	return w
}

// Closer returns a Part that only has to be closed at the end.
func Closer(name string, closeIt func() error) Part {
	return &closer{name: name, close: sync.OnceValue(closeIt)}
}

type closer struct {
	name  string
	close func() error
}

// Name implements Part.
func (c *closer) Name() string { return c.name }

// Start implements Part.
func (c *closer) Start(context.Context) {}

// Failed implements Part.
func (c *closer) Failed() <-chan struct{} { return nil }

// Err implements Part.
func (c *closer) Err() error { return nil }

// Stop implements Part.
func (c *closer) Stop(context.Context) error { return c.close() }
