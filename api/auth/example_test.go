package auth_test

import (
	"context"
	"fmt"
	"log"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/client"
)

// An app gets its tokens with its credentials.
func Example() {
	creds, err := auth.LoadCredentials("credentials.json")
	if err != nil {
		log.Fatal(err)
	}
	h, err := creds.HTTPClient()
	if err != nil {
		log.Fatal(err)
	}
	source, err := creds.Source(h)
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(creds.URLs["mp1"], client.WithHTTPClient(h), client.WithTokenSource(source.Token))
	if err != nil {
		log.Fatal(err)
	}
	services, err := c.Discover(context.Background(), client.Query{})
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range services {
		fmt.Println(s.SerName, s.SerInstanceID)
	}
}

// A secret is not logged by accident.
func ExampleSecret() {
	creds := auth.Credentials{AccessKeyID: "QVUJMSUMgS0VZLS0tLS0", SecretKey: "not to be seen", Name: "mepm"}
	fmt.Println(creds)
	fmt.Println(creds.SecretKey)
	// Output:
	// credentials QVUJMSUMgS0VZLS0tLS0 of mepm
	// [redacted]
}
