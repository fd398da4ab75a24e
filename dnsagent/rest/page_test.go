package rest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/kit/query"
)

func TestPagesAreThoseOfTheAPI(t *testing.T) {
	require.Equal(t, dns.DefaultPage, query.DefaultPage)
	require.Equal(t, dns.MaxPage, query.MaxPage)
}
