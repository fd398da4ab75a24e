package mep

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/api/auth"
)

// tokenCommand returns the command that gets a token as any client does.
func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Get a token for the credentials in a file, and print it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := cmd.Flags().GetString("credentials")
			if err != nil {
				return err
			}
			if file == "" {
				return errors.New("--credentials is required: a file such as bootstrap/mepm.json in the data directory, or what mep credentials create printed")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), commandTimeout)
			defer cancel()
			token, err := fetch(ctx, cmd, file)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), token)
			return nil
		},
	}
	f := cmd.Flags()
	f.String("credentials", "", "credentials file")
	f.String("url", "", "URL of the token service; default: urls.auth of the file")
	f.String("ca", "", "PEM file of the CA of the token service; default: caFile of the file")
	f.StringSlice("scope", nil, "scopes to ask for; default: all the credentials have")
	f.Bool("signed", false, "sign the request as EdgeGallery's agents do, instead of sending the secret key")
	return cmd
}

func fetch(ctx context.Context, cmd *cobra.Command, file string) (string, error) {
	c, err := auth.LoadCredentials(file)
	if err != nil {
		return "", err
	}
	f := cmd.Flags()
	if ca, _ := f.GetString("ca"); ca != "" {
		c.CAFile = ca
	}
	client, err := c.HTTPClient()
	if err != nil {
		return "", err
	}
	defer client.CloseIdleConnections()
	cfg := auth.Config{URL: c.URLs[auth.AuthListener], AccessKeyID: c.AccessKeyID, SecretKey: c.SecretKey, HTTPClient: client}
	if url, _ := f.GetString("url"); url != "" {
		cfg.URL = url
	}
	if cfg.URL == "" {
		return "", fmt.Errorf("%s does not say where the token service is: say so with --url", file)
	}
	cfg.Scopes, _ = f.GetStringSlice("scope")
	cfg.Signed, _ = f.GetBool("signed")
	source, err := auth.NewSource(cfg)
	if err != nil {
		return "", err
	}
	return source.Token(ctx)
}
