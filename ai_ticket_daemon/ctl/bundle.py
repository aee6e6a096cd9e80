"""``ai-ticketctl bundle``: an archive for whoever helps: no prompts, no completions, no secrets."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.ctl.restore import PRIVATE
from ai_ticket_daemon.ctl.session import EXIT_OK
from ai_ticket_daemon.telemetry.redact import redact_line

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.ctl.session import Session

JOURNAL_LINES = 2000
JOURNAL_SECONDS = 30.0
JOURNAL_BYTES = 8 * 1024 * 1024
_OURS = ("AI_TICKET_", "__REALTIME_TIMESTAMP", "PRIORITY", "MESSAGE", "TRACE_ID", "_PID", "UNIT")
_README = """\
About one ai-ticket-daemon, made by `ai-ticketctl bundle` at {at}.

status.json     what `ai-ticketctl status` shows
config.json     the configuration in force; secrets are masked
tasks.txt       every task and where it waits
metrics.txt     the metrics page
history.json    what happened to the servers
logs.ndjson     the last log lines of this process
journal.ndjson  {journal}

Prompts, completions and secrets are in none of these. What looks like a secret, an address or a
long number was taken out of log lines.
"""


def bundle(session: Session) -> int:
    """Write what helps others to help."""
    answer = session.client.look("bundle")
    instance = session.options.instance
    lines, about = journal(f"ai-ticket@{instance}" if instance else "ai-ticket")
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    parts = {
        "README.txt": _README.format(at=at, journal=about),
        "status.json": json.dumps(answer["status"], indent=2),
        "config.json": json.dumps(answer["config"], indent=2),
        "history.json": json.dumps(answer["history"], indent=2),
        "tasks.txt": answer["tasks"],
        "metrics.txt": answer["metrics"],
        "logs.ndjson": _ndjson(answer["logs"]),
        "journal.ndjson": _ndjson(lines),
    }
    output: Path = session.options.output
    with (
        os.fdopen(os.open(output, PRIVATE, 0o600), "wb") as file,
        tarfile.open(fileobj=file, mode="w:gz") as archive,
    ):
        for name, text in parts.items():
            data = text.encode()
            member = tarfile.TarInfo(f"ai-ticket-bundle/{name}")
            member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
            archive.addfile(member, io.BytesIO(data))
    session.say(
        {
            "written": str(output),
            "files": sorted(parts),
            "bytes": output.stat().st_size,
            "journal": about,
        }
    )
    return EXIT_OK


def journal(unit: str) -> tuple[list[dict[str, Any]], str]:
    """Return the unit's last lines from the journal, redacted, and in words what they are.

    Lines below ``info`` are left out. No lines, and why, if they cannot be had.
    """
    command = [
        "journalctl", "--quiet", "--no-pager", "--output=json", "--priority=info",
        f"--lines={JOURNAL_LINES}", f"--unit={unit}",
    ]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 - no words of others
            command, capture_output=True, timeout=JOURNAL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"none: journalctl cannot be used here: {error}"
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
        return [], f"none: journalctl ended with {done.returncode}: {said}"
    # The last ones, should there be more than fit.
    raw = done.stdout[-JOURNAL_BYTES:].splitlines()
    lines = [line for text in raw if (line := _line(text)) is not None]
    if not lines:
        return [], f"none: the journal has no lines of {unit} that this user may read"
    return lines, f"the last lines of {unit} in the journal ({len(lines)}), redacted"


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(text)
    except ValueError:  # the one that was cut through
        return None
    return redact_line({name: value for name, value in entry.items() if name.startswith(_OURS)})


def _ndjson(lines: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line, default=str, ensure_ascii=False) + "\n" for line in lines)
