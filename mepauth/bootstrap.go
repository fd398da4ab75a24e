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

// FirstManager is the name under which the MEC platform manager gets its first credential.
const FirstManager = "mepm"

// BootstrapFile is where the first credential of the MEC platform manager is left.
func BootstrapFile(common *daemon.Config) string {
	return filepath.Join(common.DataDir, "bootstrap", FirstManager+".json")
}

// Bootstrap gives the MEC platform manager its first credential, once in the life of a database, and leaves it in a file for
// nobody but the operator to read. Later it keeps the URLs in the file up to date, as long as the file is there. urls are
// those of the listeners, by their names.
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
		env.Log.Warn("the credentials file of the first start is left as it is", "error", err) // it is not needed any more
	}
	if done && !there {
		return nil
	}
	scopes := []string{state.ScopeMm5, state.ScopeOps}
	if !there {
		ak, sk := credential.Generate()
		c = &auth.Credentials{AccessKeyID: ak, SecretKey: auth.Secret(sk), Name: FirstManager, Scopes: scopes}
	}
	// The file comes first: a credential nobody knows the secret of would be of no use after a crash in between.
	caFile := ""
	if env.Certs != nil && env.Certs.CAFile() != "" {
		if caFile, err = filepath.Rel(filepath.Dir(path), env.Certs.CAFile()); err != nil {
			return err
		}
	}
	// LoadCredentials has made the present one absolute.
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
		// Another replica did it meanwhile; what was left here opens nothing.
		return os.Remove(path)
	}
	env.Log.Info("the first credential of the MEC platform manager is ready", "file", path)
	env.Audit.Write(audit.Entry{
		Action: "credential.create", Result: audit.Success, Caller: "platform", Client: c.AccessKeyID, Target: FirstManager,
		Scope: state.ScopeMm5 + " " + state.ScopeOps, Detail: "first start",
	})
	return nil
}

// WriteCredentials writes a credentials file that only its owner can read. A crash leaves the old one or the new one.
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
