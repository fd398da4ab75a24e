package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/durable"
)

func TestReplaceLeavesTheNewContentsAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path+".tmp", []byte("of a process that was killed"), 0o600))
	for _, text := range []string{"first", "second"} {
		require.NoError(t, durable.Replace(path, []byte(text), 0o600))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, text, string(got))
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestReplaceThatFailsLeavesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.Mkdir(path, 0o700)) // a directory cannot be replaced by a file
	require.Error(t, durable.Replace(path, []byte("x"), 0o600))
	require.DirExists(t, path)
	require.NoFileExists(t, path+".tmp")
	require.Error(t, durable.Replace(filepath.Join(dir, "none", "f"), []byte("x"), 0o600))
}
