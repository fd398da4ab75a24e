package mep

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/settings"
)

func TestConfigurationsThatAreRefused(t *testing.T) {
	for flag, c := range map[string]struct{ value, want string }{
		"mp1-listen":                  {"8088", "is not host:port"},
		"ops-listen":                  {":http-nonsense", "is not a port"},
		"public-url":                  {"mec.example", "not an absolute http or https URL"},
		"mp1-prefixes":                {"mep/", "must be empty or start with a slash"},
		"limits-services":             {"0", "limits.services must be at least 1"},
		"liveness-min":                {"1500ms", "whole number of seconds"},
		"liveness-max":                {"0s", "at least 1s"},
		"notifications-give-up-after": {"10ms", "at least 1s"},
		"drain":                       {"10s", "at most 4s"},
		"etcd-timeout":                {"0s", "more than 0"},
		"storage-quota":               {"1000", "at least 16777216"},
		"storage-reserve":             {"-1", "must not be negative"},
		"data-dir":                    {"", "dataDir must not be empty"},
	} {
		_, err := Platform().Load(settings.Sources{Flags: map[string]string{flag: c.value}})
		require.ErrorContains(t, err, c.want, flag)
	}
	_, err := Platform().Load(settings.Sources{Flags: map[string]string{"mp1-listen": "0.0.0.0:1", "dev": "true"}})
	require.ErrorContains(t, err, "is not a loopback address")
	_, err = Platform().Load(settings.Sources{})
	require.NoError(t, err, "the defaults are valid")
}

func TestThePlatformHasNoNameOfAService(t *testing.T) {
	for flag, setting := range map[string]string{
		"public-url": "publicUrl", "gateway-public-url": "gateway.publicUrl", "auth-public-url": "auth.publicUrl", "auth-issuer": "auth.issuer",
	} {
		load := func(domain string) error {
			_, err := Platform().Load(settings.Sources{Flags: map[string]string{flag: "https://auth.mec.example:8443", "gateway-service-domain": domain}})
			return err
		}
		require.ErrorContains(t, load("mec.example"), setting+": its host auth.mec.example is below gateway.serviceDomain")
		require.NoError(t, load("svc.mec.example"))
	}
}

func TestDataDirectoryIsUsedByOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	require.NoError(t, err)
	_, err = lock(dir)
	require.ErrorContains(t, err, "in use by another process")
	require.NoError(t, unlock.Close())
	unlock, err = lock(dir)
	require.NoError(t, err)
	require.NoError(t, unlock.Close())
}
