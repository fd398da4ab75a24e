package mep

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// keysCommand returns the command that shows and changes the keys that sign tokens.
func keysCommand(s *Spec) *cobra.Command {
	keys := &cobra.Command{Use: "keys", Short: "Show and change the keys that sign tokens", Args: cobra.NoArgs}
	list := &cobra.Command{Use: "list", Short: "List the signing keys and what each does at present", Args: cobra.NoArgs}
	rotate := &cobra.Command{
		Use: "rotate", Short: "Publish a new signing key, which signs after auth.keys.notBefore", Args: cobra.NoArgs,
	}
	retire := &cobra.Command{
		Use: "retire KID", Args: cobra.ExactArgs(1),
		Short: "Let a key sign no longer; it verifies until the last token it signed has expired",
	}
	retire.Flags().Bool("revoke", false, "let it verify no longer either: every token it signed is refused from now on")
	keys.AddCommand(administer(s, list, false, listKeys), administer(s, rotate, false, rotateKeys), administer(s, retire, false, retireKey))
	return keys
}

func listKeys(ctx context.Context, cmd *cobra.Command, a *admin, _ []string) error {
	list, err := a.keys.List(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KID\tALGORITHM\tSTATE\tSIGNS FROM\tSIGNS UNTIL\tVERIFIES UNTIL")
	for i := range list {
		k := &list[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Record.Algorithm, k.Phase(list, now),
			moment(k.Record.NotBefore), moment(k.Record.Retired), moment(k.Record.Expires))
	}
	return w.Flush()
}

// moment formats a time for people; "-" stands for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func rotateKeys(ctx context.Context, cmd *cobra.Command, a *admin, _ []string) error {
	kid, from, err := a.keys.Rotate(ctx, a.cfg.Auth.KeyPolicy())
	a.record("key.rotate", "", kid, "", err)
	if err != nil {
		return err
	}
	cmd.Printf("%s is published and signs from %s\n", kid, moment(from))
	return nil
}

func retireKey(ctx context.Context, cmd *cobra.Command, a *admin, args []string) error {
	revoke, err := cmd.Flags().GetBool("revoke")
	if err != nil {
		return err
	}
	successor, err := a.keys.Retire(ctx, args[0], revoke, a.cfg.Auth.KeyPolicy())
	detail := "signs no longer"
	if revoke {
		detail = "signs and verifies no longer"
	}
	a.record("key.retire", "", args[0], detail, err)
	if err != nil {
		return err
	}
	cmd.Printf("%s %s\n", args[0], detail)
	if successor != "" {
		cmd.Printf("%s signs now\n", successor)
	}
	return nil
}
