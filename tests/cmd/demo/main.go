// Command demo tells the story of two MEC apps on a platform it starts itself, secure as it is by default: the MEPM gives both
// their credentials and configures the platform for them, their traffic rules reach the data plane, their names are answered by
// the DNS server as long as they are in force, one offers a service, the other finds it, hears what becomes of it and calls it
// through the gateway, keys are replaced meanwhile, who may not do something cannot, and in the end the MEPM terminates both. Every
// request, answer and notification is real, and shown as it happens, less the secrets. The program fails when anything differs from
// what it expects, so it is a test as well.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	binary := flag.String("mep", "bin/mep", "the platform's program")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, 45*time.Second, errors.New("the whole story took too long"))
	defer cancel()
	if err := run(ctx, *binary); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo failed:", err)
		os.Exit(1)
	}
}

// run tells the story and leaves nothing behind: no process, no directory.
func run(ctx context.Context, binary string) (err error) {
	dir, err := os.MkdirTemp("", "mep-demo-")
	if err != nil {
		return err
	}
	p := &platform{binary: binary, dir: dir}
	defer func() {
		p.kill()
		if err != nil {
			fmt.Fprintf(os.Stderr, "\nthe platform's log:\n%s", p.logged())
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	return (&story{screen: newScreen(os.Stdout), platform: p}).tell(ctx)
}
