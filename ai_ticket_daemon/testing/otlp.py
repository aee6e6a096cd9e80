"""A collector to test against: takes spans over OTLP, HTTP or gRPC, and shows them.

Built from the official ``opentelemetry-proto`` package, so that it reads what any collector reads.
"""

from __future__ import annotations

import gzip
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass(frozen=True)
class ReceivedEvent:
    """Something that happened within a span."""

    name: str
    attributes: Mapping[str, object]


@dataclass(frozen=True)
class ReceivedSpan:
    """One span; ids in hex, ``parent_id`` empty for a root. ``kind`` as OTLP numbers them."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    attributes: Mapping[str, Any]
    events: tuple[ReceivedEvent, ...]
    resource: Mapping[str, Any]
    seconds: float

    def event(self, name: str) -> ReceivedEvent:
        """Return the one event of that name."""
        (found,) = (event for event in self.events if event.name == name)
        return found


@dataclass
class Collector:
    """What arrived, and how the collector behaves.

    ``status`` is what HTTP requests are answered with; anything but 200 throws the spans away.
    """

    endpoint: str = ""
    status: int = 200
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    spans: list[ReceivedSpan] = field(default_factory=list)
    count: int = 0
    keep: bool = True
    _more: threading.Condition = field(default_factory=threading.Condition)

    def take(self, request: Any) -> None:
        """Take in one export request."""
        with self._more:
            for span in _spans_of(request) if self.keep else ():
                self.spans.append(span)
            self.count += sum(
                len(scope.spans) for group in request.resource_spans for scope in group.scope_spans
            )
            self._more.notify_all()

    def wait_for(self, *names: str, timeout_seconds: float = 20.0) -> list[ReceivedSpan]:
        """Wait (blocking) until a span of each name has arrived; return all spans so far.

        Raises:
            TimeoutError: not all came in time.
        """
        give_up_at = time.monotonic() + timeout_seconds
        with self._more:
            while missing := _missing(names, self.spans):
                left = give_up_at - time.monotonic()
                if left <= 0 or not self._more.wait(left):
                    raise TimeoutError(f"no span {missing} among {[s.name for s in self.spans]}")
            return list(self.spans)


@contextmanager
def http_collector(context: ssl.SSLContext | None = None, *, port: int = 0) -> Iterator[Collector]:
    """Run a collector that speaks OTLP over HTTP with protobuf; on any free port by default."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.headers.append({k.lower(): v for k, v in self.headers.items()})
            collector.paths.append(self.path)
            answer = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            if collector.status == 200:
                collector.take(trace_service_pb2.ExportTraceServiceRequest.FromString(body))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    scheme = "http"
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    collector.endpoint = f"{scheme}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_collector(credentials: grpc.ServerCredentials | None = None) -> Iterator[Collector]:
    """Run a collector that speaks OTLP over gRPC."""
    collector = Collector()

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the protocol
            collector.headers.append(dict(context.invocation_metadata()))
            collector.take(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    if credentials is None:
        port, scheme = server.add_insecure_port("127.0.0.1:0"), "http"
    else:
        port, scheme = server.add_secure_port("127.0.0.1:0", credentials), "https"
    collector.endpoint = f"{scheme}://localhost:{port}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(grace=None).wait()


def _spans_of(request: Any) -> Iterator[ReceivedSpan]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    _attributes(span.attributes),
                    tuple(
                        ReceivedEvent(event.name, _attributes(event.attributes))
                        for event in span.events
                    ),
                    resource,
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )


def _attributes(pairs: Any) -> dict[str, object]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def _missing(names: tuple[str, ...], spans: list[ReceivedSpan]) -> list[str]:
    present = [span.name for span in spans]
    return [name for name in set(names) if present.count(name) < names.count(name)]
