package mep

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/signing"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/mepauth"
	"github.com/openmep/mep/mepauth/credential"
)

// credentialsCommand returns the command that shows and changes the credentials of apps and managers.
func credentialsCommand(s *Spec) *cobra.Command {
	root := &cobra.Command{
		Use: "credentials", Short: "Show and change the credentials of apps and managers, whether the platform runs or not", Args: cobra.NoArgs,
	}
	create := &cobra.Command{
		Use: "create", Short: "Give an app, or with --scope a manager, its credentials, and print them as a credentials file", Args: cobra.NoArgs,
	}
	f := create.Flags()
	f.String("app-instance-id", "", "UUID of the app instance; \"new\" makes one")
	f.String("name", "", "name of the app or of the manager")
	f.StringSlice("scope", nil, "what a manager may do: mm5, ops")
	f.StringSlice("requires", nil, "names of the services the app requires; it sees those and its own; none: it sees all")
	f.String("access-key-id", "", "access key to use; default: a new one, or the app's present one")
	f.String("secret-key-file", "", "file with the secret key to use; default: a new one")
	f.Bool("refresh-tokens", false, "give refresh tokens, too")
	f.Bool("bind-client-address", false, "tokens are good only for the address they were given to")
	f.String("out", "", "file to write, for nobody else to read; default: standard output")
	list := &cobra.Command{Use: "list", Short: "List the credentials, without secrets", Args: cobra.NoArgs}
	disable := &cobra.Command{Use: "disable ACCESS_KEY_ID", Short: "Refuse a credential, and the tokens it has, until it is enabled"}
	enable := &cobra.Command{Use: "enable ACCESS_KEY_ID", Short: "Take a disabled credential again; tokens it had stay revoked"}
	rotate := &cobra.Command{Use: "rotate ACCESS_KEY_ID", Short: "Give a credential a new secret key; the present one stays good for a while"}
	rotate.Flags().Duration("overlap", 0, "how long the present secret key stays good; default: auth.secretOverlap")
	rotate.Flags().String("out", "", "file to write, for nobody else to read; default: standard output")
	remove := &cobra.Command{Use: "delete ACCESS_KEY_ID", Short: "Delete a credential and revoke its tokens"}
	for _, c := range []*cobra.Command{disable, enable, rotate, remove} {
		c.Args = oneAccessKey
	}
	root.AddCommand(administer(s, create, true, createCredential), administer(s, list, false, listCredentials),
		administer(s, disable, false, switchCredential(true)), administer(s, enable, false, switchCredential(false)),
		administer(s, rotate, false, rotateCredential), administer(s, remove, false, deleteCredential))
	return root
}

// oneAccessKey accepts an access key id. It does not repeat anything else, which may be the secret key.
func oneAccessKey(_ *cobra.Command, args []string) error {
	if len(args) != 1 || !signing.ValidAccessKeyID(args[0]) {
		return fmt.Errorf("give one access key id: %d letters, digits and characters of \"_+/=\", as mep credentials list shows it",
			signing.AccessKeyIDLength)
	}
	return nil
}

// managerName matches the names of managers. A UUID is refused besides: it could be an appInstanceId.
var managerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// wanted reads the flags of create.
func wanted(cmd *cobra.Command) (w credential.Wanted, app bool, err error) {
	f := cmd.Flags()
	get := func(name string) string { v, _ := f.GetString(name); return v }
	id := get("app-instance-id")
	w.Name, w.AccessKeyID = get("name"), get("access-key-id")
	w.Scopes, _ = f.GetStringSlice("scope")
	w.Requires, _ = f.GetStringSlice("requires")
	w.RefreshTokens, _ = f.GetBool("refresh-tokens")
	w.BindClientAddress, _ = f.GetBool("bind-client-address")
	if file := get("secret-key-file"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return w, false, err
		}
		if w.SecretKey = strings.TrimSpace(string(text)); !signing.ValidSecretKey(w.SecretKey) {
			return w, false, fmt.Errorf("%s must hold %d letters, digits and characters of \"_+/=\"", file, signing.SecretKeyLength)
		}
	}
	if w.AccessKeyID != "" && !signing.ValidAccessKeyID(w.AccessKeyID) {
		return w, false, fmt.Errorf("--access-key-id must be %d letters, digits and characters of \"_+/=\"", signing.AccessKeyIDLength)
	}
	switch {
	case id == "new":
		id = uuid.NewString()
	case id == "" && len(w.Scopes) == 0:
		return w, false, errors.New("say whom the credentials are for: --app-instance-id UUID for an app, or --scope mm5 (or ops) and --name for a manager")
	case id != "" && (len(id) != 36 || uuid.Validate(id) != nil):
		return w, false, fmt.Errorf("--app-instance-id must be a UUID, or \"new\", not %q", id)
	}
	if id != "" {
		if len(w.Scopes) > 0 && !slices.Equal(w.Scopes, []string{state.ScopeMp1}) {
			return w, false, errors.New("an app has the scope mp1 only: give a manager credentials of its own")
		}
		w.Subject, w.Scopes = identity.CanonicalID(id), []string{state.ScopeMp1}
		return w, true, nil
	}
	for _, scope := range w.Scopes {
		if scope != state.ScopeMm5 && scope != state.ScopeOps {
			return w, false, fmt.Errorf("--scope must be mm5 or ops for a manager, not %q", scope)
		}
	}
	if !managerName.MatchString(w.Name) || uuid.Validate(w.Name) == nil {
		return w, false, errors.New("--name of a manager must be 1 to 63 of the characters a-z 0-9 . _ - and begin with a letter or digit")
	}
	w.Subject = w.Name
	return w, false, nil
}

// writable checks that the file of --out can be written, before a change is made whose result would be lost.
func writable(cmd *cobra.Command) error {
	out, err := cmd.Flags().GetString("out")
	if err != nil || out == "" {
		return err
	}
	probe, err := os.CreateTemp(filepath.Dir(out), ".credentials-*")
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

func createCredential(ctx context.Context, cmd *cobra.Command, a *admin, _ []string) error {
	if err := writable(cmd); err != nil {
		return err
	}
	w, app, err := wanted(cmd)
	if err != nil {
		return err
	}
	var made *credential.Made
	if app {
		made, err = a.book.PutApp(ctx, w)
	} else {
		made, err = a.book.AddManager(ctx, w)
	}
	key := w.AccessKeyID
	if made != nil {
		key = made.AccessKeyID
	}
	a.record("credential.create", key, w.Subject, "", err)
	if err != nil {
		return err
	}
	if made.SecretKey == "" && w.SecretKey == "" {
		cmd.PrintErrf("the app has credentials already, access key %s; the secret key is not shown again: "+
			"mep credentials rotate gives a new one\n", made.AccessKeyID)
		return nil
	}
	return a.hand(cmd, &made.Known, cmp.Or(made.SecretKey, w.SecretKey))
}

// hand writes credentials to the file of --out, or prints them.
func (a *admin) hand(cmd *cobra.Command, k *credential.Known, secret string) error {
	c := &auth.Credentials{
		AccessKeyID: k.AccessKeyID, SecretKey: auth.Secret(secret), Name: k.Credential.Name, Scopes: k.Credential.Scopes,
	}
	if uuid.Validate(k.Credential.Subject) == nil {
		c.AppInstanceID = k.Credential.Subject
	}
	c.URLs, c.CAFile = a.reach()
	if !slices.Contains(c.Scopes, state.ScopeMm5) {
		c.URLs = maps.Clone(c.URLs)
		delete(c.URLs, "mm5")
		delete(c.URLs, "dns")
		delete(c.URLs, gatewayManagement.listener)
	}
	out, err := cmd.Flags().GetString("out")
	if err != nil {
		return err
	}
	if out != "" {
		if err := mepauth.WriteCredentials(out, c); err != nil {
			return err
		}
		cmd.PrintErrf("written to %s\n", out)
		return nil
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(c)
}

// reach returns how clients reach the platform: as the platform itself last said, else as it is configured.
func (a *admin) reach() (urls map[string]string, caFile string) {
	common := &a.cfg.Common
	if first, err := auth.LoadCredentials(mepauth.BootstrapFile(common)); err == nil {
		if abs, err := filepath.Abs(first.CAFile); err == nil && first.CAFile != "" {
			return first.URLs, abs
		}
		return first.URLs, first.CAFile
	}
	urls = make(map[string]string)
	listeners := map[string]struct{ public, listen string }{
		auth.AuthListener: {a.cfg.Auth.PublicURL, a.cfg.Auth.Listen}, "mp1": {a.cfg.Server.PublicURL, a.cfg.Server.Mp1Listen},
		"mm5": {a.cfg.Server.Mm5.PublicURL, a.cfg.Server.Mm5.Listen},
	}
	if a.cfg.DNS.Enabled() {
		listeners["dns"] = struct{ public, listen string }{a.cfg.DNS.PublicURL, a.cfg.DNS.ManagementListen}
	}
	if g := &a.cfg.Gateway; g.Enabled() {
		listeners["gateway"] = struct{ public, listen string }{a.cfg.Server.GatewayURL, g.Listen}
		listeners[gatewayManagement.listener] = struct{ public, listen string }{"", g.ManagementListen}
	}
	for name, l := range listeners {
		if urls[name] = strings.TrimSuffix(l.public, "/"); urls[name] == "" {
			urls[name] = a.guess(l.listen)
		}
	}
	if own := filepath.Join(common.PKIDir(), "ca.crt"); !common.Dev && common.TLSCert == "" {
		if abs, err := filepath.Abs(own); err == nil {
			own = abs
		}
		caFile = own
	}
	return urls, caFile
}

// guess derives a URL from the address that a listener is bound to.
func (a *admin) guess(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || host == "" || net.ParseIP(host).IsUnspecified() {
		if host, err = os.Hostname(); err != nil || a.cfg.Common.Dev {
			host = "127.0.0.1"
		}
	}
	if a.cfg.Common.Dev {
		return "http://" + net.JoinHostPort(host, port)
	}
	return "https://" + net.JoinHostPort(host, port)
}

func listCredentials(ctx context.Context, cmd *cobra.Command, a *admin, _ []string) error {
	list, err := a.book.List(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ACCESS KEY\tSUBJECT\tNAME\tSCOPES\tSTATE\tSECRETS\tCREATED")
	for i := range list {
		k := &list[i]
		what := "enabled"
		if k.Credential.Disabled {
			what = "disabled"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", k.AccessKeyID, k.Credential.Subject, cmp.Or(k.Credential.Name, "-"),
			strings.Join(k.Credential.Scopes, ","), what, len(k.Secrets), moment(k.Credential.Created))
	}
	return w.Flush()
}

func switchCredential(off bool) func(context.Context, *cobra.Command, *admin, []string) error {
	action, done := "credential.enable", "enabled"
	if off {
		action, done = "credential.disable", "disabled, its tokens are revoked"
	}
	return func(ctx context.Context, cmd *cobra.Command, a *admin, args []string) error {
		subject, err := a.book.SubjectOf(ctx, args[0])
		if err == nil {
			_, err = a.book.Change(ctx, subject, args[0], func(rec *state.Credential) { rec.Disabled = off })
		}
		a.record(action, args[0], subject, "", err)
		if err != nil {
			return err
		}
		cmd.Printf("%s is %s\n", args[0], done)
		return nil
	}
}

func rotateCredential(ctx context.Context, cmd *cobra.Command, a *admin, args []string) error {
	if err := writable(cmd); err != nil {
		return err
	}
	overlap := a.cfg.Auth.SecretOverlap
	if cmd.Flags().Changed("overlap") {
		var err error
		if overlap, err = cmd.Flags().GetDuration("overlap"); err != nil {
			return err
		}
		if overlap < 0 || overlap > auth.MaxOverlapSeconds*time.Second {
			return fmt.Errorf("--overlap must be 0s to %s", auth.MaxOverlapSeconds*time.Second)
		}
	}
	subject, err := a.book.SubjectOf(ctx, args[0])
	var made *credential.Made
	if err == nil {
		made, err = a.book.Rotate(ctx, subject, args[0], "", overlap)
	}
	a.record("credential.rotate", args[0], subject, "", err)
	if err != nil {
		return err
	}
	return a.hand(cmd, &made.Known, made.SecretKey)
}

func deleteCredential(ctx context.Context, cmd *cobra.Command, a *admin, args []string) error {
	subject, err := a.book.SubjectOf(ctx, args[0])
	if err == nil {
		_, err = a.book.Delete(ctx, subject, args[0])
	}
	a.record("credential.delete", args[0], subject, "", err)
	if err != nil {
		return err
	}
	cmd.Printf("%s is deleted, its tokens are revoked\n", args[0])
	return nil
}
