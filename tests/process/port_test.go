package process_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/process"
)

func TestAddressesThatAreFreeAreToldOnce(t *testing.T) {
	seen := make(map[string]bool)
	for range 200 {
		addr, err := process.FreeAddr()
		require.NoError(t, err)
		require.False(t, seen[addr], addr)
		seen[addr] = true
		ln, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		defer ln.Close()
	}
}
