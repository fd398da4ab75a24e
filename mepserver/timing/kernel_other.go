//go:build !linux

package timing

import (
	"errors"
	"runtime"
)

// readKernel fails: only Linux reports what its clock follows.
func readKernel() (discipline, error) {
	return discipline{}, errors.New("what the clock follows is not known on " + runtime.GOOS + ": configure an NTP server")
}
