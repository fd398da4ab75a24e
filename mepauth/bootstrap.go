package mepauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/durable"
	"github.com/openmep/mep/mepauth/credential"
)

// FirstManager is the subject of the MEC platform manager's first credential.
const FirstManager = "mepm"

// BootstrapFile returns the path of the file with the first credential of the MEC platform manager.
func BootstrapFile(common *daemon.Config) string {
	return filepath.Join(common.DataDir, "bootstrap", FirstManager+".json")
}

// Bootstrap creates the first credential of the MEC platform manager, once in the life of a database, and writes it to a
// file that only the owner can read. Later it keeps the URLs and the CA file in that file up to date, as long as the file
// exists. urls maps the names of the listeners to their URLs.
func (s *Server) Bootstrap(ctx context.Context, urls map[string]string, env *daemon.Env) error {
	path := BootstrapFile(env.Common)
	c, err := auth.LoadCredentials(path)
	there := err == nil
	done, derr := s.book.Bootstrapped(ctx)
	if derr != nil {
		return derr
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if !done {
			return err
		}
		env.Log.Warn("the credentials file of the first start is left as it is", "error", err) // no longer needed
	}
	if done && !there {
		return nil
	}
	scopes := []string{state.ScopeMm5, state.ScopeOps}
	if !there {
		ak, sk := credential.Generate()
		c = &auth.Credentials{AccessKeyID: ak, SecretKey: auth.Secret(sk), Name: FirstManager, Scopes: scopes}
	}
	// The file is written first: after a crash in between, a credential whose secret nobody knows would be useless.
	caFile := ""
	if env.Certs != nil && env.Certs.CAFile() != "" {
		if caFile, err = filepath.Rel(filepath.Dir(path), env.Certs.CAFile()); err != nil {
			return err
		}
	}
	// LoadCredentials has made c.CAFile absolute.
	stale := c.CAFile == "" && caFile != "" || c.CAFile != "" && c.CAFile != filepath.Join(filepath.Dir(path), caFile)
	if !there || stale || !maps.Equal(c.URLs, urls) {
		c.URLs, c.CAFile = urls, caFile
		if err := WriteCredentials(path, c); err != nil {
			return err
		}
	}
	if done {
		return nil
	}
	mine, err := s.book.Bootstrap(ctx, credential.Wanted{
		Subject: FirstManager, Name: "first credential of the MEC platform manager", Scopes: scopes,
		AccessKeyID: c.AccessKeyID, SecretKey: string(c.SecretKey),
	})
	if err != nil {
		return err
	}
	if !mine {
		// Another replica was first; the credential in the local file is not valid.
		return os.Remove(path)
	}
	env.Log.Info("the first credential of the MEC platform manager is ready", "file", path)
	env.Audit.Write(audit.Entry{
		Action: "credential.create", Result: audit.Success, Caller: "platform", Client: c.AccessKeyID, Target: FirstManager,
		Scope: state.ScopeMm5 + " " + state.ScopeOps, Detail: "first start",
	})
	return nil
}

// WriteCredentials writes a credentials file that only its owner can read. A crash leaves either the old or the new file.
func WriteCredentials(path string, c *auth.Credentials) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("credentials file: %w", err)
	}
	if err := durable.Replace(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("credentials file: %w", err)
	}
	return nil
}
