// Package blackbox tests the built programs of the platform from outside.
package blackbox

import (
	"os"
	"testing"

	"github.com/openmep/mep/tests/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
