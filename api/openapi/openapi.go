// Package openapi holds the OpenAPI 3.1 documents of the platform's HTTP interfaces. They are written by hand, and
// the tests of the interfaces check every exchange against them.
package openapi

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

const extension = ".yaml"

//go:embed *.yaml
var files embed.FS

// Documents returns the names of the documents, sorted and without extension: "mec_app_support", "mec_service_mgmt",
// "mep_auth", "mep_dns", "mep_gateway", "mm5", "ops".
func Documents() []string {
	// Globbing an embedded file system fails only on a malformed pattern.
	paths, _ := fs.Glob(files, "*"+extension)
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i] = strings.TrimSuffix(p, extension)
	}
	slices.Sort(names)
	return names
}

// YAML returns the text of the named document; ok is false when there is none of that name. The caller may
// change the bytes.
func YAML(name string) (text []byte, ok bool) {
	text, err := files.ReadFile(name + extension)
	return text, err == nil
}
