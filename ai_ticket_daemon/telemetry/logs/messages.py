"""The log lines that operators act on: their ``MESSAGE_ID``, their cause and what to do.

``python -m ai_ticket_daemon.telemetry.logs.messages > systemd/ai-ticket.catalog`` writes the
catalog that ``journalctl -x`` shows (https://systemd.io/CATALOG/). An id is never
changed or used again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from textwrap import fill
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Message:
    """What the catalog says of one event name; ``@FIELD@`` stands for that field of the line."""

    message_id: str
    subject: str
    cause: str
    remedy: str


MESSAGES: Mapping[str, Message] = MappingProxyType(
    {
        "started": Message(
            "39f53479d3a045ac8e11786248231fbf",
            "The daemon serves",
            "Everything has started: HTTP on @AI_TICKET_ADDRESSES@, version @AI_TICKET_VERSION@.",
            "Nothing is to be done. `curl http://HOST:5000/health` tells how it does.",
        ),
        "stopping": Message(
            "be02cf6855d2428ba40df7e9d022f03d",
            "The daemon is stopping",
            "A stop was asked for, by systemctl or a signal. No new work is taken; generations "
            "that run may end within pipeline.drain_seconds.",
            "Nothing is to be done. A second SIGTERM ends it at once.",
        ),
        "failed": Message(
            "eea28906fd6144a1a319ced8f4a329e2",
            "A fault ended the daemon",
            "A part failed in a way that restarting it did not heal. The lines before this one "
            "and its traceback name the part. The exit code is 70, and systemd starts the "
            "daemon again, thirty times within five minutes at the most.",
            "Look at the lines marked actor_restarted before this one: they share the cause. If "
            "systemd has given up, mend the cause, then `systemctl reset-failed ai-ticket` and "
            "`systemctl start ai-ticket`.",
        ),
        "unavailable": Message(
            "d2e159f6999842efb5c33903986dc327",
            "An address or a store the daemon needs is not available",
            "@AI_TICKET_DETAIL@",
            "An address: free it (`ss -ltnp` shows who holds it) or choose another one in the conf "
            "file. The store: see to the disk, the owner and the rights of the file that is named. "
            "systemd starts the daemon again by itself meanwhile.",
        ),
        "config_refused": Message(
            "15583b91e7e54b9ab873e249eff17a1e",
            "The configuration cannot be used, the daemon does not start",
            "The conf file or the environment has mistakes: @AI_TICKET_PROBLEMS@.",
            "Correct the file, check it with `ai-ticket-daemon --check-config`, and start the "
            "service. systemd does not try again by itself (exit code 78).",
        ),
        "clock_set": Message(
            "954113386fde408d978c0177a5d42017",
            "The clock of the host was set, by @AI_TICKET_STEP_SECONDS@ seconds",
            "Somebody, or a time service, set the clock while the daemon ran or was away. "
            "Deadlines and durations do not follow it, so nothing expires for that reason; times "
            "that are shown move along.",
            "Nothing is to be done if it was meant. If it comes again and again, let chrony or "
            "systemd-timesyncd slew the clock: `timedatectl timesync-status`.",
        ),
        "watchdog_starved": Message(
            "38d6ebee451742b2b082cdeff3aa5787",
            "Parts of the daemon hang, systemd is about to start it anew",
            "No progress any more: @AI_TICKET_HUNG@. The watchdog of systemd is no longer "
            "fed; the line task_tree after this one tells what every task waits for.",
            "Nothing has to be done to get it going again: what was accepted is in the store. "
            "Keep the task tree and report it; look at the disk and at the backends at that "
            "time.",
        ),
        "reload_applied": Message(
            "0c6f8a53a7b14c8a9d3c7e7f4b1d0a91",
            "A changed configuration is in force",
            "Changed: @AI_TICKET_CHANGES@. Waiting for a restart: @AI_TICKET_NEEDS_RESTART@.",
            "Restart the service if a key that waits for it matters now.",
        ),
        "reload_refused": Message(
            "7d1f2f6e5c3b4f0e8a9b6c5d4e3f2a10",
            "A reload was refused, the old configuration stays in force",
            "The conf file or the environment has mistakes: @AI_TICKET_PROBLEMS@.",
            "Correct the file, check it with `ai-ticket-daemon --check-config`, and reload "
            "again. Until then the daemon works as before, but would not start with this file.",
        ),
        "certificate_refused": Message(
            "0a8f430d800f408990113d234f197edd",
            "A changed certificate cannot be used, the one before is served on",
            "@AI_TICKET_REASON@",
            "Put a certificate and the key that belongs to it into the files of http.tls_cert and "
            "http.tls_key; they are looked at every few seconds. The daemon would not start with "
            "what is there now. `ai-ticket-daemon --check-config` tells when it is right.",
        ),
        "certificate_expires": Message(
            "e7efd369e7a640c48e7140749799c32b",
            "The certificate of the HTTP front end is about to expire, or has",
            "@AI_TICKET_DETAIL@",
            "Renew it, and put the new files where http.tls_cert and http.tls_key point: they are "
            "taken within seconds, without a reload. A credential is a copy, and takes a restart.",
        ),
        "failover": Message(
            "5b7a2c1e9d7e4f0bb6c1a63c0f8d2e11",
            "The standby serves from now on",
            "Why: @AI_TICKET_REASON@. Work goes on; what failed on the primary before its first "
            "answer is tried on the standby.",
            "Look after the primary: the line backend_unusable before this one says what is "
            "wrong with it. Once it has been healthy for backends.failback_after_seconds the "
            "daemon goes back by itself, unless backends.failback is manual.",
        ),
        "failback": Message(
            "c0d5c2b8a1f64a07a7a4de5f0c9b7e22",
            "The primary serves again",
            "Why: @AI_TICKET_REASON@.",
            "Nothing is to be done.",
        ),
        "backend_unusable": Message(
            "982cdb5aedb449269963b634c136f64d",
            "A backend cannot be used",
            "The backend @AI_TICKET_BACKEND@ is @AI_TICKET_STATE@: @AI_TICKET_REASON@.",
            "Look at the server itself: does its process run, does it answer `curl "
            "URL/api/extra/perf`, has it loaded the right model? It is probed all the time and "
            "used again as soon as it is well.",
        ),
        "backend_credential_refused": Message(
            "daa61405063844c4a9871a5462ffb9ea",
            "A backend does not accept its password",
            "The password in the password_file of the backend @AI_TICKET_BACKEND@ is not the "
            "server's.",
            "Put the right password into the file and reload.",
        ),
        "actor_restarted": Message(
            "a596d6fe7bfa4994828e72309e95d61e",
            "A part of the daemon crashed and is started again",
            "The part @AI_TICKET_CRASHED@ met an error nobody expected; the traceback says "
            "which. More than five of these within a minute end the daemon with exit code 70.",
            "The daemon heals itself; keep the traceback and report it. If it comes again and "
            "again, look at what the traceback names first: disk, memory, network.",
        ),
        "worker_crashed": Message(
            "6d64db135ab14e47b27c6e9b0ae9764e",
            "A fault of the daemon ended an event",
            "The event @AI_TICKET_EVENT_ID@ failed with internal_error; the traceback says why.",
            "Report it with the traceback. The other events go on.",
        ),
        "probe_crashed": Message(
            "9b5c37ffdf9d45bfafee6231290ac3ff",
            "A fault of the daemon kept it from looking at a server",
            "What it asked the server @AI_TICKET_BACKEND@, or what that answered, met an error "
            "nobody expected; the traceback says which. It counts as a failed probe, and the "
            "other servers are looked at as before.",
            "Report it with the traceback. Said once, until the server is looked at without it.",
        ),
        "store_failed": Message(
            "8c2f2f3f5b0d4d8fa3b7b6b1a5a0c4d3",
            "The event store cannot be written",
            "Nothing can be written to the file of store.url: @AI_TICKET_REASON@. New events are "
            "answered 503 store_unavailable; outcomes of running events are kept in memory.",
            "Remove the cause named above. The store is tried every second, and the line "
            "store_recovered says when it works again; no restart is needed.",
        ),
        "queue_full": Message(
            "7d61a9943dc5417c9f2809b0b731bb3b",
            "The queue is full, new events are refused",
            "As many events wait as store.max_queued allows; clients are answered 503 queue_full "
            "with a time after which to come again. Events refused since the last such line: "
            "@AI_TICKET_REFUSED@.",
            "Find out why the queue does not shrink: is a backend down or slow, or does more "
            "come in than the backends can do? Add a backend, or raise store.max_queued and "
            "reload.",
        ),
        "log_lines_dropped": Message(
            "351d0ff862944a05a4ec9d2b51ea12dd",
            "Log lines were lost",
            "Who takes the lines, journald or the reader of standard error, stood still for so "
            "long that @AI_TICKET_DROPPED@ had to be dropped.",
            "Look at `systemctl status systemd-journald` and at the disk the journal is on.",
        ),
        "capture_failed": Message(
            "6f3d080282454d2c8d4d27a4c4718372",
            "A failing payload could not be kept",
            "log.capture_payloads is set, but the folder cannot be written: @AI_TICKET_REASON@.",
            "Correct log.capture_directory, its owner (the service's user) or the room on its "
            "disk.",
        ),
        "store_recovered": Message(
            "16de9a1e56094c128c8d7e16de054497",
            "The store takes writes again",
            "What had to wait in memory has been written.",
            "Nothing is to be done.",
        ),
        "collector_unreachable": Message(
            "3072781aafe741f3982825c35f6fe4a1",
            "Spans do not reach the collector",
            "The collector does not take spans: @AI_TICKET_REASON@. Events are not affected; "
            "spans that find no room while it is away are dropped and counted in "
            "ai_ticket_telemetry_spans_dropped_total.",
            "Look after the collector, or correct telemetry.otlp_endpoint, "
            "OTEL_EXPORTER_OTLP_HEADERS or its certificate and restart. This is said once until "
            "spans arrive again.",
        ),
        "collector_reachable": Message(
            "df4c7530efa6460c9407d93f1b76a997",
            "Spans reach the collector again",
            "The collector has taken spans again; @AI_TICKET_DROPPED@ were lost meanwhile.",
            "Nothing is to be done.",
        ),
    }
)
"""By the name of the event."""


def catalog() -> str:
    """Return the text of ``systemd/ai-ticket.catalog``."""
    lines = [
        "# What the messages of ai-ticket-daemon mean, for `journalctl -x`.",
        "# Written by `python -m ai_ticket_daemon.telemetry.logs.messages`.",
        "",
    ]
    for message in MESSAGES.values():
        lines += [
            f"-- {message.message_id}",
            f"Subject: {message.subject}",
            "Defined-By: ai-ticket-daemon",
            "",
            fill(message.cause, 78, break_long_words=False, break_on_hyphens=False),
            "",
            fill(message.remedy, 78, break_long_words=False, break_on_hyphens=False),
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(catalog())
