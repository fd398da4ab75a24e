package telemetry

import (
	"context"
	"fmt"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Tracer sends traces to an OpenTelemetry collector. The zero Tracer, and a nil one, send nothing.
type Tracer struct {
	provider *trace.TracerProvider
}

// NewTracer returns a tracer that sends to the collector at an OTLP/HTTP URL such as http://127.0.0.1:4318. With an empty
// URL it is nil: there is no tracing, and no cost.
func NewTracer(ctx context.Context, url, service, version string) (*Tracer, error) {
	if url == "" {
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(url+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("traces to %s: %w", url, err)
	}
	return &Tracer{provider: trace.NewTracerProvider(
		trace.WithBatcher(exporter),
		trace.WithResource(resource.NewSchemaless(semconv.ServiceName(service), semconv.ServiceVersion(version))),
	)}, nil
}

// Wrap records a span of every request that h handles, and continues a trace that the client began (W3C Trace Context).
func (t *Tracer) Wrap(listener string, h http.Handler) http.Handler {
	if t == nil {
		return h
	}
	return otelhttp.NewHandler(h, listener,
		otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + listener }))
}

// Inject writes the span of a request into the header of a request made because of it.
func (t *Tracer) Inject(ctx context.Context, h http.Header) {
	if t != nil {
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
	}
}

// TraceID returns the id of the trace that a request belongs to; "" if there is none.
func (t *Tracer) TraceID(ctx context.Context) string {
	if t == nil {
		return ""
	}
	if sc := oteltrace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}

// Close sends the remaining spans.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}
