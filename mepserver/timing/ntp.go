package timing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/beevik/ntp"
)

// answerTimeout is how long an NTP server has to respond.
const answerTimeout = 5 * time.Second

// maxStratum is the highest stratum of a server that knows the time (RFC 5905 figure 11).
const maxStratum = 15

// askServer queries an NTP server once.
func (c *Clock) askServer(ctx context.Context, server string) (observation, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	resp, err := ntp.QueryWithOptions(server, ntp.QueryOptions{
		Timeout: c.patience,
		Dialer: func(_, remote string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "udp", remote)
			if err == nil {
				// The library takes no context: close the connection when ctx ends, unless the library has done so before.
				context.AfterFunc(ctx, func() { _ = conn.Close() })
			}
			return conn, err
		},
	})
	switch {
	case err != nil && (ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)):
		return observation{}, fmt.Errorf("%s does not answer within %s", server, c.patience)
	case err != nil:
		return observation{}, fmt.Errorf("ask %s: %w", server, err)
	}
	if err := resp.Validate(); err != nil {
		if resp.IsKissOfDeath() {
			return observation{}, fmt.Errorf("%s wants no questions (%.4q): %w", server, resp.KissCode, err)
		}
		return observation{}, fmt.Errorf("%s answered: %w", server, err)
	}
	if resp.Stratum < 1 || resp.Stratum > maxStratum {
		return observation{}, fmt.Errorf("%s answered: its stratum is %d, not 1 to %d", server, resp.Stratum, maxStratum)
	}
	return observation{answered: true, at: c.now(), offset: resp.ClockOffset, stratum: int(resp.Stratum)}, nil
}
