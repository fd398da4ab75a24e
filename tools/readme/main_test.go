package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseFindsCommandsAndTheirOutput(t *testing.T) {
	steps := parse("# x\n```sh test\necho a\n```\n\n```text output\na\n```\n```sh\nnot run\n```\n```sh test\necho b\n```\n")
	require.Len(t, steps, 2)
	require.Equal(t, "echo a\n", steps[0].commands)
	require.Equal(t, "a\n", *steps[0].want)
	require.Nil(t, steps[1].want)
	require.Equal(t, 2, steps[0].line)
}

func TestMatchesTakesTheEllipsisForAnything(t *testing.T) {
	require.True(t, matches("id …\nend", "id 4711\nand more\nend\n"))
	require.True(t, matches("a.b", "a.b"))
	require.False(t, matches("a.b", "axb"))
	require.False(t, matches("id …", "no"))
}
