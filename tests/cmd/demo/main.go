// Command demo tells the story of two MEC apps on a platform that it starts itself with the secure defaults. The MEPM gives
// both apps credentials and configures the platform for them. Their traffic rules reach the data plane, and the DNS server
// answers for their names while the rules are in force. One app offers a service; the other discovers it, is notified of its
// changes and calls it through the gateway. Meanwhile keys are replaced, and unauthorised requests are refused. In the end the
// MEPM terminates both apps. Every request, response and notification is real and shown as it happens, without the secrets. The
// program fails when anything differs from its expectations, so it is also a test.
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

// run tells the story and leaves no process or directory behind.
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
