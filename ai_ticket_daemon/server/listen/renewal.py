"""The renewer: an actor that notices a renewed certificate, and says in time when one expires."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.config.values.certificate import CertificateUnusable
from ai_ticket_daemon.host.exhaustion import exhausted
from ai_ticket_daemon.server.listen.tls import signature_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.host.exhaustion import Exhaustion
    from ai_ticket_daemon.server.listen.tls import ServedCertificate

LOOK_SECONDS = 5.0
"""Time between two looks at the files; a change is taken when two looks in a row saw the same."""
STAT_SECONDS = 10.0
"""How long the file system may take to tell what the files look like."""
WARN_EVERY_SECONDS = 86400.0


async def run(
    *,
    certificate: ServedCertificate,
    shown: Callable[[float], None],
    log: FilteringBoundLogger,
    exhaustion: Exhaustion,
    now: Callable[[], float] = time.time,
    look_seconds: float = LOOK_SECONDS,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Look at the files every few seconds; runs until cancelled.

    Args:
        certificate: what is served.
        shown: told when it expires, in seconds since the Unix epoch; 0 if there is none.
        log: told of a certificate that is renewed, refused, or about to expire.
        exhaustion: is told of what the host lacks.
        now: what the time is, by the calendar.
        look_seconds: time between two looks.
        task_status: started at once.
    """
    warned_at, warned_of = 0.0, ""
    task_status.started()
    while True:
        try:
            await _look(certificate, log)
        except Exception as error:
            if exhaustion.meets(error, "renewal") is None:
                raise
        chain = certificate.chain
        shown(0 if chain is None else chain.expires_at)
        warning = None if chain is None else chain.warning(now())
        is_due = now() - warned_at >= WARN_EVERY_SECONDS or str(chain) != warned_of
        if warning is not None and is_due:
            log.warning("certificate_expires", detail=warning)
            warned_at, warned_of = now(), str(chain)
        await trio.sleep(look_seconds)


async def _look(certificate: ServedCertificate, log: FilteringBoundLogger) -> None:
    paths = certificate.paths
    if not paths:
        return
    with trio.move_on_after(STAT_SECONDS) as patience:
        # In a thread: a file system that hangs is not to hold up the event loop.
        signature = await trio.to_thread.run_sync(signature_of, paths, abandon_on_cancel=True)
    if patience.cancelled_caught or not certificate.should_take(signature):
        return
    take(certificate, log)


def take(certificate: ServedCertificate, log: FilteringBoundLogger) -> None:
    """Serve what the files hold, if it can be used, and say what came of it.

    Raises:
        CertificateUnusable: for want of something on this host; nothing is known of the files.
    """
    try:
        changed = certificate.take()
    except CertificateUnusable as error:
        if exhausted(error) is not None:
            raise
        log.warning("certificate_refused", reason=f"http.{error.key}: {error}")
        return
    if changed and certificate.chain is not None:
        log.info("certificate_taken", expires_at=certificate.chain.expires_at)
