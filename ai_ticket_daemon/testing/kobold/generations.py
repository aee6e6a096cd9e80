"""The requests that need the generation lock: their queue, their checks, their answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio

from .dialects import (
    NoAnswer,
    NullAnswer,
    Poison,
    end_mark,
    find_dialect,
    plain_payload,
    read_job,
    stream_event,
)
from .wire import (
    BAD_INPUT,
    BUSY,
    POST_NOT_FOUND,
    STREAM_HEADERS,
    UNAUTHORIZED,
    ClientGone,
    json_answer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dialects import Dialect, Job
    from .observe import GenerationRecord
    from .process import ServerProcess
    from .wire import Connection, Request

__all__ = ["serve_locked_post"]

# With all delays at zero a stream still must not spin while it waits for tokens.
_LEAST_POLL_SECONDS = 0.001


async def serve_locked_post(
    process: ServerProcess, connection: Connection, request: Request, body: bytes
) -> None:
    """Queue for the lock, then authorise, parse and answer, in the server's own order."""
    target = find_dialect(request.path)
    observations, lock = process.observations, process.lock
    record = observations.arrive(request.path)
    refused = target is not None and process.faults.busy
    acquired = not refused and lock.try_acquire()
    if refused or (lock.full and not acquired):
        observations.refuse(record)
        await connection.send(BUSY)
        return
    if not acquired:
        observations.wait(record)
        try:
            await lock.wait()
        except trio.Cancelled:
            observations.end(record)
            raise
    observations.start(record)
    hangs = False
    try:
        if target:
            hangs = await _answer(process, connection, request, target, body, record)
        else:
            record.outcome = "failed"
            await trio.sleep(process.settings.answer_hold_seconds)
    finally:
        observations.end(record)
        lock.release()
        observations.changed()
    if not target:
        await connection.send(POST_NOT_FOUND)
    if hangs:
        await connection.wait_until_closed()


async def _answer(
    process: ServerProcess,
    connection: Connection,
    request: Request,
    target: tuple[Dialect, bool],
    body: bytes,
    record: GenerationRecord,
) -> bool:
    """Answer while the lock is held; true if the connection is to hang once it is free again."""
    process.last_request_at = trio.current_time()
    try:
        return await _authorised_answer(process, connection, request, target, body, record)
    except ClientGone:
        record.client_gone = True
    except NoAnswer:
        record.outcome = "failed"
    except NullAnswer as mistake:
        record.outcome = "failed"
        if mistake.stream:
            await connection.send(STREAM_HEADERS)
            return True
        await connection.send(json_answer(None))
    except Poison:
        record.outcome = "failed"
        process.faults.die()
        await trio.lowlevel.checkpoint()
    await _hold(process.settings.answer_hold_seconds)
    return False


async def _authorised_answer(
    process: ServerProcess,
    connection: Connection,
    request: Request,
    target: tuple[Dialect, bool],
    body: bytes,
    record: GenerationRecord,
) -> bool:
    refusal = None
    genparams = None
    if not process.authorized(request):
        refusal = UNAUTHORIZED
    else:
        try:
            genparams = json.loads(body)
        except ValueError:
            refusal = BAD_INPUT
    if refusal is not None:
        record.outcome = "failed"
        await connection.send(refusal)
        await _hold(process.settings.answer_hold_seconds)
        return False
    script = process.faults.next_script()
    if script is not None:
        record.outcome = "failed"
        if script.raw:
            await connection.send(script.raw)
        if not script.then_hang:
            connection.close(reset=script.reset)
        return script.then_hang
    job = read_job(*target, genparams)
    record.genkey, record.stream = job.genkey, job.stream
    await (_stream if job.stream else _plain)(process, connection, job, record)
    return False


async def _plain(
    process: ServerProcess, connection: Connection, job: Job, record: GenerationRecord
) -> None:
    text, finish = "", "length"
    if _begin(process, job, record):
        await process.engine.write(record.prompt_tokens)
        text, finish = process.engine.text, process.finish_reason()
        _note_end(process, record)
    payload = plain_payload(job.dialect, text, finish, process.model, process.created())
    try:
        await connection.send(json_answer(None if job.spoiled else payload))
    except ClientGone:
        record.client_gone = True
    await _hold(process.settings.answer_hold_seconds)


async def _stream(
    process: ServerProcess, connection: Connection, job: Job, record: GenerationRecord
) -> None:
    engine = process.engine
    await connection.send(STREAM_HEADERS)
    if not process.has_model:
        _begin(process, job, record)
        await _pour(process, connection, job, record, lambda: ("", True))
    elif not _begin(process, job, record) or not engine.running:
        # An aborted request shows whatever the previous generation left in the token buffer.
        await _pour(process, connection, job, record, lambda: (engine.text, True))
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.write, record.prompt_tokens)
            await _pour(process, connection, job, record, lambda: (engine.text, not engine.running))
    if record.outcome == "running":
        _note_end(process, record)
    await _hold(process.settings.stream_hold_seconds)


def _begin(process: ServerProcess, job: Job, record: GenerationRecord) -> bool:
    """Start the engine on a job; false if nothing is generated for it."""
    process.current_genkey = job.genkey
    if not process.has_model:
        record.outcome = "completed"
        return False
    if process.pending_abort_key and process.pending_abort_key == job.genkey:
        process.pending_abort_key = ""
        record.outcome = "skipped"
        return False
    plan, record.prompt_tokens = process.plan(job)
    process.observations.started_total += 1
    process.engine.begin(plan, record.prompt_tokens, process.seed_of(job))
    return True


def _note_end(process: ServerProcess, record: GenerationRecord) -> None:
    """Write down how the generation that has just ended went."""
    engine, observations = process.engine, process.observations
    record.tokens = engine.produced
    record.outcome = "aborted" if engine.aborted else "completed"
    observations.busy_seconds += engine.last_seconds
    if engine.aborted:
        observations.aborted_total += 1
    else:
        observations.completed_total += 1
    observations.changed()


async def _pour(
    process: ServerProcess,
    connection: Connection,
    job: Job,
    record: GenerationRecord,
    look: Callable[[], tuple[str, bool]],
) -> None:
    """Send the text as it appears in the token buffer, until the generation has finished.

    Args:
        process: The server.
        connection: The client's connection.
        job: What was asked.
        record: Where a vanished client is noted.
        look: Gives the text so far, and whether that is all of it.
    """
    settings = process.settings
    await _hold(settings.first_event_seconds)
    sent, events, cut = 0, 0, process.faults.next_cut()
    try:
        while True:
            text, finished = look()
            if len(text) > sent or finished:
                if events == cut:
                    connection.cut(reset=process.faults.cut_with_reset)
                reason = process.finish_reason() if process.has_model else "length"
                pieces = stream_event(
                    job.dialect,
                    text[sent:],
                    reason if finished else "null",
                    process.model,
                    process.created(),
                )
                for piece in pieces:
                    await connection.send(piece)
                sent = len(text)
                events += 1
            if finished:
                mark = end_mark(job.dialect)
                if mark:
                    await connection.send(mark)
                return
            await trio.sleep(settings.poll_seconds or _LEAST_POLL_SECONDS)
    except ClientGone:
        record.client_gone = True
        process.engine.abort()
        await _hold(settings.gone_client_seconds)


async def _hold(seconds: float) -> None:
    if seconds:
        await trio.sleep(seconds)
