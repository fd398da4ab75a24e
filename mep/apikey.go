package mep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/gateway"
)

// apikeyCommand returns the command that shows and changes the API keys of the consumers of a running platform.
func apikeyCommand(s *Spec) *cobra.Command {
	root := &cobra.Command{Use: "apikey", Short: "Show and change the API keys of consumers at the gateway of a running platform", Args: cobra.NoArgs}
	create := &cobra.Command{Use: "create", Short: "Make an API key, and print it: it is not shown again", Args: cobra.NoArgs}
	f := create.Flags()
	f.String("consumer", "", "whom the key is for: an appInstanceId, or a name")
	f.String("description", "", "what people are to know of the key")
	f.StringSlice("scope", nil, "what its holder may do; default: mp1")
	f.StringSlice("service", nil, "names of the services it is good for; none: whatever the consumer may use")
	f.Duration("lifetime", 0, "how long it is good; default: for ever")
	list := &cobra.Command{Use: "list", Short: "List the API keys, without the keys themselves", Args: cobra.NoArgs}
	list.Flags().String("consumer", "", "only keys of this consumer")
	remove := &cobra.Command{Use: "delete ID", Short: "Delete an API key: it is not taken any more", Args: oneKeyID}
	g := &gatewayManagement
	root.AddCommand(g.command(s, create, createAPIKey), g.command(s, list, listAPIKeys), g.command(s, remove, deleteAPIKey))
	return root
}

// oneKeyID accepts the id of a key. It does not repeat anything else, which may be the key itself.
func oneKeyID(_ *cobra.Command, args []string) error {
	if len(args) != 1 || len(args[0]) != 16 || strings.Trim(args[0], "0123456789abcdef") != "" {
		return errors.New("give one id of an API key: 16 hexadecimal digits, as mep apikey list shows it")
	}
	return nil
}

func createAPIKey(ctx context.Context, cmd *cobra.Command, g *client.Gateway, _ []string) error {
	f := cmd.Flags()
	var req gateway.APIKeyRequest
	req.Consumer, _ = f.GetString("consumer")
	req.Description, _ = f.GetString("description")
	req.Scopes, _ = f.GetStringSlice("scope")
	req.Services, _ = f.GetStringSlice("service")
	if life, _ := f.GetDuration("lifetime"); life != 0 {
		req.Lifetime = gateway.Duration(life.String())
	}
	if req.Consumer == "" {
		return errors.New("say whom the key is for: --consumer")
	}
	key, err := g.CreateAPIKey(ctx, req)
	if err != nil {
		return err
	}
	if done, err := printed(cmd, key); done || err != nil {
		return err
	}
	// Only the key goes to the standard output, for scripts.
	cmd.PrintErrf("API key %s of %s, %s\n", key.ID, key.Consumer, until(key.Expires))
	_, err = fmt.Fprintln(cmd.OutOrStdout(), key.Key)
	return err
}

func until(expires time.Time) string {
	if expires.IsZero() {
		return "good until it is deleted"
	}
	return "good until " + moment(expires)
}

func listAPIKeys(ctx context.Context, cmd *cobra.Command, g *client.Gateway, _ []string) error {
	consumer, err := cmd.Flags().GetString("consumer")
	if err != nil {
		return err
	}
	list, err := collected(g.APIKeys(ctx, consumer))
	if err != nil {
		return err
	}
	if done, err := printed(cmd, list); done || err != nil {
		return err
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tCONSUMER\tSCOPES\tSERVICES\tCREATED\tEXPIRES\tDESCRIPTION")
	for _, k := range list {
		expires := "never"
		if !k.Expires.IsZero() {
			expires = moment(k.Expires)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Consumer, cmp.Or(strings.Join(k.Scopes, ","), "-"),
			cmp.Or(strings.Join(k.Services, ","), "all"), moment(k.Created), expires, cmp.Or(k.Description, "-"))
	}
	return w.Flush()
}

func deleteAPIKey(ctx context.Context, cmd *cobra.Command, g *client.Gateway, args []string) error {
	if err := g.DeleteAPIKey(ctx, args[0]); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "deleted: %s\n", args[0])
	return err
}
