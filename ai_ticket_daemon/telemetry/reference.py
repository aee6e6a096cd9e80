"""``docs/metrics.md``, written from the families so that it cannot disagree with them.

``python -m ai_ticket_daemon.telemetry.reference > docs/metrics.md`` brings it up to date.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from ai_ticket_daemon.telemetry.metrics import LATENCY_BUCKETS, PROBE_BUCKETS, Metrics

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

_INTRODUCTION = """\
# Metrics

<!-- Written by `python -m ai_ticket_daemon.telemetry.reference`; change
     `ai_ticket_daemon/telemetry/metrics.py` and run it again. -->

The daemon serves its metrics in Prometheus' text format on an address of their own,
`metrics.bind` (`0.0.0.0:9464`):

```console
$ curl -s http://127.0.0.1:9464/metrics
```

The page is served by a thread of its own, so it answers even when the event loop does not. It is
served to 16 connections at a time: a request has to come within 5 seconds and its answer be read
within 10, and whoever has been silent longest makes room for the next one. Only `GET` and `HEAD` of
`/metrics` (or `/`) are answered.

A family with labels has no series before something has been counted under them, but for these,
which start at 0: `ai_ticket_actor_restarts_total`, `ai_ticket_host_exhausted_total`,
`ai_ticket_pipeline_events_total`, `ai_ticket_server_connections_refused_total` and
`ai_ticket_telemetry_spans_dropped_total`. One without labels starts at 0, too.
The gauges of the pipeline are set once a second.

Who asks for OpenMetrics (`Accept: application/openmetrics-text`, as Prometheus does) also gets
exemplars: the durations name the trace of one request each, if it was [recorded](traces.md).

## Families
"""

_LABELS = """\
## Wasted work

`ai_ticket_kobold_wasted_seconds_total` and `..._tokens_total` count what a backend did for nobody:
each attempt that ended without a completion somebody got, but for those that met a busy server.

* A generation that is aborted on KoboldCPP is counted by the server. One that ends otherwise is
  estimated, four characters of its text to a token, thinking included: a stream from what was
  received, a plain generation, which shows nothing before its end, from the last look at it (every
  15 s, as a rule).
* Before the first look, and on other kinds of servers, the tokens of a plain one are unknown.
* What a daemon that was killed had under way is not in here, as nobody saw how long it went on:
  `ai_ticket_pipeline_recovered_total` counts those events.

`ai_ticket_kobold_wasted_attempts_total` says of how many attempts the tokens are known. The share
of its time that a backend spends for nobody:

```text
sum by (backend) (rate(ai_ticket_kobold_wasted_seconds_total[1h]))
  / sum by (backend) (rate(ai_ticket_kobold_request_duration_seconds_sum[1h]))
```

## Labels

No label ever holds an event id, a prompt, an address of a client, or a path that a client made up.

| Label | Values |
|---|---|
| `route` | a route of [the HTTP surface](http-api.md), or `unmatched` |
| `method` | a method that HTTP defines, or `OTHER` |
| `status` | the HTTP status of the answer; `499` if the client left before there was one |
| `error` | one of [the error codes](http-api.md) |
| `outcome` of `pipeline_*` | the final state of the event: `succeeded`, `failed`, `cancelled`, \
`expired` |
| `outcome` of `kobold_*` | how the attempt ended: `succeeded`, `failed`, `cancelled` |
| `resource` | `file descriptors`, `threads`, `memory`, `socket buffers` |
| `state` | `queued`, `running` |
| `order` | `paused`, `draining` (also while the daemon stops), `pinned` |
| `backend`, `from_backend`, `to_backend` | `name` of a `[[backends.server]]` |
| `role` | `primary`, `standby` |
| `dialect` | `dialect` of the server |
| `kind` of `kobold_tokens_total` | `prompt`, `completion` |
| `reason` of `kobold_failovers_total` | `primary_unusable`, `standby_unusable`, `primary_steady`, \
`no_standby`, `pinned`, `asked_back`: \
see [which role serves](backend-health.md#which-role-serves) |
| `reason` of `kobold_aborts_total` | `cancelled`: nobody wanted the result any more; \
`first_token_timeout`, `idle_timeout`, `total_timeout`: the server took too long; `unreadable`: \
its answer made no sense |
| `place` | `ahead`: where its beginning had just been read, \
[ahead of others](event-life.md#events-that-begin-alike); `in_turn`: the same, and its event was \
next; `read_anew`: the backend had just read another prompt |
| `reason` of `kobold_guests_total` | `spill`: the primaries were busy with others; `retry`: the \
event had failed on the servers that serve |
| `reason` of `server_connections_refused_total` | `malformed`: what came over it is not valid \
HTTP, or can be read in two ways; `address_full`: its address has as many as one may have; \
`full`: all connections are taken |
| `reason` of `telemetry_spans_dropped_total` | `queue_full`, `export_failed`, `stopped` |
| `cause` | why it was thrown away: one of [the error codes](http-api.md) of a failed attempt, \
`client_left`, `cancelled`, `deadline_exceeded`, `daemon_stopped` (the time to drain was over), \
`lease_lost`, `outcome_unwritten` |
| `tokens` | `counted`, `estimated` from the length of the text, `unknown` |
| `result` of `config_*` | `applied`, `refused` |
| `result` of `kobold_probe_*` | `answered`, `failed`, `timeout` |
| `actor` | a part that [the supervisor](error-policy.md) restarts, such as `prober` |
| `part` | what looks on and failed at it: `capture`, `http`, `pipeline`, `pool`, \
`sampler`, `store` |
| `kind` of `kobold_backend_info` | `kind` of the server |
| `version` of `kobold_backend_info` | what the server tells, `unknown` if it tells none |
| `version` of `build_info` | the version of the daemon |
"""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family as Prometheus sees it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    about: str


class _Families(Metrics):
    """Notes each family as it is made."""

    def __init__(self) -> None:
        self.found: list[Family] = []
        super().__init__(CollectorRegistry())

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        self.found.append(Family(f"ai_ticket_{name}_total", "counter", labels, about))
        return super()._counter(name, about, *labels)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        self.found.append(Family(f"ai_ticket_{name}", "gauge", labels, about))
        return super()._gauge(name, about, *labels)

    def _histogram(
        self, name: str, about: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS
    ) -> Histogram:
        self.found.append(Family(f"ai_ticket_{name}", "histogram", labels, about))
        return super()._histogram(name, about, *labels, buckets=buckets)


def families() -> tuple[Family, ...]:
    """Return every family the daemon has, in the order of ``metrics.py``."""
    return tuple(_Families().found)


def reference() -> str:
    """Return the text of ``docs/metrics.md``."""
    lines = [_INTRODUCTION, "| Family | Type | Labels | Meaning |", "|---|---|---|---|"]
    for family in families():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.about} |")
    bounds, probe_bounds = (
        ", ".join(f"{bound:g}" for bound in buckets) for buckets in (LATENCY_BUCKETS, PROBE_BUCKETS)
    )
    lines += [
        "",
        f"Histograms are in seconds, with the bounds {bounds}; probes with {probe_bounds}.",
    ]
    lines += ["", _LABELS]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(reference())
