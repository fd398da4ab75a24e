package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
)

// An app offers a service while it is running.
func Example_producer() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := client.New("http://127.0.0.1:8088")
	if err != nil {
		log.Fatal(err)
	}
	app := c.App("5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f")

	interval := 30 // seconds
	svc, err := app.Register(ctx, mp1.ServiceInfo{
		SerName: "location", Version: "2.1.1", State: mp1.StateActive, Serializer: mp1.SerializerJSON,
		TransportInfo: &mp1.TransportInfo{
			ID: "rest", Name: "REST", Type: mp1.TransportRESTHTTP, Protocol: "HTTP", Version: "2.0",
			Endpoint: &mp1.EndPointInfo{URIs: []string{"http://10.0.0.7:8080/location/v2"}},
			Security: &mp1.SecurityInfo{},
		},
		LivenessInterval: &interval,
	})
	if err != nil {
		log.Fatal(err)
	}
	// Here the service would be provided.
	if err := app.KeepAlive(ctx, svc.Info.SerInstanceID); err != nil {
		log.Fatal(err)
	}
	if err := app.Remove(context.WithoutCancel(ctx), svc.Info.SerInstanceID); err != nil {
		log.Fatal(err)
	}
}

// An app discovers a service and is notified of its changes.
func Example_consumer() {
	ctx := context.Background()
	c, err := client.New("http://127.0.0.1:8088")
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/services-changed", client.NotificationHandler(
		func(_ context.Context, n mp1.ServiceAvailabilityNotification) error {
			for _, ref := range n.ServiceReferences {
				fmt.Println(ref.SerName, ref.ChangeType, ref.State)
			}
			return nil
		}))
	go func() { log.Fatal(http.ListenAndServe("10.0.0.8:9000", nil)) }()

	_, err = c.App("f81d4fae-7dec-41d0-a765-00a0c91e6bf6").Subscribe(ctx, mp1.SerAvailabilityNotificationSubscription{
		CallbackReference: "http://10.0.0.8:9000/services-changed",
		FilteringCriteria: &mp1.FilteringCriteria{SerNames: []string{"location"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	services, err := c.Discover(ctx, client.Query{Names: []string{"location"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range services {
		fmt.Println(s.SerInstanceID, s.TransportInfo.Endpoint.URIs)
	}
}

// A change applies only to the version that was read.
func ExampleIfMatch() {
	ctx := context.Background()
	c, err := client.New("http://127.0.0.1:8088")
	if err != nil {
		log.Fatal(err)
	}
	app := c.App("5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f")
	for {
		svc, err := app.Service(ctx, "ae2e1d1c-6f0b-4c32-8c5f-70f25b0c2f44")
		if err != nil {
			log.Fatal(err)
		}
		svc.Info.State = mp1.StateInactive
		_, err = app.Replace(ctx, svc.Info.SerInstanceID, svc.Info, client.IfMatch(svc.ETag))
		if client.IsPreconditionFailed(err) {
			continue // somebody else was faster
		}
		if doc, ok := errors.AsType[*problem.Details](err); ok {
			for _, p := range doc.InvalidParams {
				fmt.Println(p.Name, p.Reason)
			}
		}
		return
	}
}
