// Package harness runs the built programs of the platform for black-box tests: as processes of their own, reached over
// the network only, as an operator and the apps reach them.
//
//	p := harness.Start(t)                    // mep run --dev on free ports, ready
//	answer := p.Client(t).Get("/mec_service_mgmt/v1/services")
//	require.Equal(t, 200, answer.Status)
//
//	p := harness.Start(t, harness.Secure())  // with TLS and tokens, as in operation
//	app := p.NewApp(t)                       // provisioned by the manager, with its token
//
//	m := p.MEPM(t)                           // the MEC platform manager at Mm5
//	c := harness.NewController(t)            // applies rules: harness.Start(t, c.Option())
//	harness.Start(t, harness.Fault("x"))     // is killed where it gets to the fault point x
//
// Every exchange of a Client is checked against the OpenAPI documents. A process that does not end properly fails its
// test. Nothing here sleeps to be in time: what has to happen is waited for with Eventually.
package harness
