package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
)

// An app confirms that it is ready, and terminates gracefully.
func Example_lifecycle() {
	ctx := context.Background()
	c, err := client.New("http://127.0.0.1:8088")
	if err != nil {
		log.Fatal(err)
	}
	app := c.App("5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f")

	// Subscribe before a notification can be due.
	end := make(chan mp1.OperationAction, 1)
	http.Handle("/termination", client.TerminationHandler(
		func(_ context.Context, n mp1.AppTerminationNotification) error {
			fmt.Println(n.OperationAction, "within", n.MaxGracefulTimeout, "s")
			end <- n.OperationAction
			return nil
		}))
	go func() { log.Fatal(http.ListenAndServe("10.0.0.7:9000", nil)) }()
	if _, err := app.SubscribeTermination(ctx, "http://10.0.0.7:9000/termination"); err != nil {
		log.Fatal(err)
	}
	// The app may be faster than the manager that configures it.
	starting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := app.Ready(starting, client.UntilConfigured()); err != nil {
		log.Fatal(err)
	}
	action := <-end
	// Here the app would save its state.
	if err := app.ConfirmTermination(ctx, action); err != nil {
		log.Fatal(err)
	}
}

// An app makes a name resolve to another address, unless somebody else has changed the rule.
func ExampleApp_ChangeDNSRule() {
	ctx := context.Background()
	c, err := client.New("http://127.0.0.1:8088")
	if err != nil {
		log.Fatal(err)
	}
	app := c.App("5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f")
	rule, err := app.DNSRule(ctx, "dnsRule1")
	if err != nil {
		log.Fatal(err)
	}
	rule, err = app.ChangeDNSRule(ctx, "dnsRule1", mp1.DNSRuleUpdate{
		State: mp1.RuleActive, IPAddressType: mp1.IPv4, IPAddress: "192.0.2.21",
	}, client.IfMatch(rule.ETag))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(rule.Info.DomainName, rule.Info.IPAddress)
}

// A manager configures an app instance and waits until its rules are applied; later it terminates the instance.
func ExampleManager() {
	ctx := context.Background()
	m, err := client.NewManager("http://127.0.0.1:8089")
	if err != nil {
		log.Fatal(err)
	}
	const app = "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"

	id, err := m.Configure(ctx, app, mm5.ConfigPlatformForAppRequest{
		AppName: "video-analytics",
		AppDNSRule: []mp1.DNSRule{{
			DNSRuleID: "dnsRule1", DomainName: "video.edge.example", IPAddressType: mp1.IPv4, IPAddress: "192.0.2.20",
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = m.WaitOperation(ctx, id)
	if failed, ok := errors.AsType[*client.OperationError](err); ok {
		for _, r := range failed.Operation.RuleResults {
			fmt.Println(r.Kind, r.RuleID, r.Result, r.Reason)
		}
	}
	if err != nil {
		log.Fatal(err)
	}
	if id, err = m.Terminate(ctx, app, client.Graceful(30*time.Second)); err != nil {
		log.Fatal(err)
	}
	if _, err = m.WaitOperation(ctx, id); err != nil {
		log.Fatal(err)
	}
}

// A manager keeps a copy of the app instances.
func ExampleManager_Events() {
	ctx := context.Background()
	m, err := client.NewManager("http://127.0.0.1:8089")
	if err != nil {
		log.Fatal(err)
	}
	known := make(map[string]mm5.Lifecycle)
	for e, err := range m.Events(ctx, client.EventQuery{
		Types:       []mm5.EventType{mm5.EventApp},
		Interrupted: func(err error) { log.Print(err) },
	}) {
		if err != nil {
			log.Fatal(err)
		}
		switch data := e.Data.(type) {
		case mm5.AppEvent:
			known[data.AppInstanceID] = data.Lifecycle
			if data.Change == mm5.Removed {
				delete(known, data.AppInstanceID)
			}
		default: // EventBegun or EventReset: read the list
			list, err := m.Instances(ctx, "")
			if err != nil {
				log.Fatal(err)
			}
			clear(known)
			for _, app := range list {
				known[app.AppInstanceID] = app.Lifecycle
			}
		}
	}
}
