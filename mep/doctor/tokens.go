package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/mepauth/keyring"
	"github.com/openmep/mep/mepauth/seal"
)

// overdue is how much older than auth.keys.rotateAfter a signing key may be before something must be preventing its rotation.
const overdue = time.Hour

// tokens examines the key file, the keys that sign tokens, and the trusted issuers.
func (x *examination) tokens(ctx context.Context, f *findings) {
	x.keys(ctx, f)
	for i := range x.Common.Identity.Issuers {
		x.issuer(f, i)
	}
}

func (x *examination) keys(ctx context.Context, f *findings) {
	file := x.Auth.SealFile(x.Common)
	store, err := x.store()
	if err != nil {
		x.unproven(f, file)
		return
	}
	if x.away() {
		f.note(file, "is not compared with the database, and signing keys are not looked at: etcd does not answer")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	proven, err := seal.Verify(ctx, file, store)
	switch {
	case errors.Is(err, errs.Unavailable), errors.Is(err, context.DeadlineExceeded):
		f.note(file, "is not compared with the database, and signing keys are not looked at: etcd does not answer")
		return
	case err != nil:
		f.fail(file, "cannot be used ("+strings.TrimSuffix(err.Error(), ".")+")",
			"put back the file that belongs to this database, from a backup or from another replica, for the user of the platform to read")
		return
	case proven:
		f.ok(file, "is the key the secrets in the database are sealed with")
	default:
		f.note(file, "is not used yet: nothing in the database is sealed")
	}
	x.signing(ctx, f, keyring.NewAdmin(store, nil))
	x.ownIssuers(ctx, f, store)
}

// unproven examines the key file alone.
func (x *examination) unproven(f *findings, file string) {
	material, err := os.ReadFile(file)
	missing := errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	database := x.embedded() && exists(x.within("etcd", "member"))
	switch {
	case missing && database:
		f.fail(file, "is missing, while there is a database with secrets that were sealed with it",
			"put it back from a backup; only a database of a release without tokens has none, and gets one when the platform starts")
	case missing:
		f.note(file, "does not exist yet: mep run makes it")
	case err != nil:
		f.fail(file, "cannot be read ("+err.Error()+")", "run mep doctor as the user of the platform; if this is that user, give it the file with chown")
	case len(material) < seal.MinKeyBytes:
		f.fail(file, fmt.Sprintf("has %d bytes, of at least %d", len(material), seal.MinKeyBytes), "put it back from a backup")
	default:
		f.note(file, "is there; whether it belongs to the database, and what keys sign, can be seen while the platform runs or etcd answers")
	}
	clear(material)
}

// signing looks for a key that signs tokens, and checks its age.
func (x *examination) signing(ctx context.Context, f *findings, admin *keyring.Admin) {
	list, err := admin.List(ctx)
	if err != nil {
		f.warn("signing keys", "cannot be listed ("+err.Error()+")", "ask again; if it stays so, look at etcd")
		return
	}
	now := x.host.now()
	for i := range list {
		k := &list[i]
		if k.Phase(list, now) != "signing" {
			continue
		}
		age := now.Sub(k.Record.NotBefore).Round(time.Minute)
		text := fmt.Sprintf("signs tokens (%s) since %s", k.Record.Algorithm, moment(k.Record.NotBefore))
		if after := x.Auth.RotateAfter; after > 0 && age > after+overdue {
			f.warn("the signing key "+k.ID, fmt.Sprintf("%s, longer than auth.keys.rotateAfter (%s)", text, after),
				"run mep keys rotate; a platform that runs does so by itself, and its log says what keeps it from doing so")
			return
		}
		f.ok("the signing key "+k.ID, text)
		return
	}
	if x.runs() {
		f.fail("signing keys", "there are none that sign, so that no token can be issued", "look at the log of the platform for what keeps it from making one")
		return
	}
	f.note("signing keys", "there are none yet: the first one is made when the platform starts")
}
