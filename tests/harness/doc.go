// Package harness runs the built programs of the platform for black-box tests: as separate processes, reached only over the
// network, as operators and apps reach them.
//
//	p := harness.Start(t)                    // mep run --dev on free ports, ready
//	answer := p.Client(t).Get("/mec_service_mgmt/v1/services")
//	require.Equal(t, 200, answer.Status)
//
//	p := harness.Start(t, harness.Secure())  // with TLS and tokens, as in production
//	app := p.NewApp(t)                       // provisioned by the manager, with its token
//
//	m := p.MEPM(t)                           // the MEC platform manager at Mm5
//	c := harness.NewController(t)            // applies rules: harness.Start(t, c.Option())
//	harness.Start(t, harness.Fault("x"))     // is killed when it reaches the fault point x
//
// Every exchange of a Client is checked against the OpenAPI documents. A process that does not exit cleanly fails its test. The
// harness never sleeps for a fixed time; it waits for conditions with Eventually.
package harness
