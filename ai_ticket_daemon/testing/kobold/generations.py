"""The requests that need the generation lock: their queue, their checks, their answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from .answers import Written
from .dialects import NoAnswer, NullAnswer, Poison, find_dialect
from .wire import (
    BAD_INPUT,
    BUSY,
    POST_NOT_FOUND,
    UNAUTHORIZED,
    ClientGone,
    json_answer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dialects import Dialect, Job
    from .generate import Engine
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
            await connection.send(process.answers.stream_headers)
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
    job = process.read_job(*target, genparams)
    record.genkey, record.stream = job.genkey, job.stream
    if process.unloaded and job.names_model and process.settings.router:
        await process.load()
    async with process.engine_for(job) as engine:
        await (_stream if job.stream else _plain)(process, engine, connection, job, record)
    return False


def _written(process: ServerProcess, engine: Engine, record: GenerationRecord) -> Written:
    return Written(
        engine.text,
        process.model,
        process.created(),
        record.prompt_tokens,
        engine.produced,
    )


async def _plain(
    process: ServerProcess,
    engine: Engine,
    connection: Connection,
    job: Job,
    record: GenerationRecord,
) -> None:
    written, reason = Written("", process.model, process.created()), process.empty_reason
    if _begin(process, engine, job, record):
        await engine.write()
        written, reason = _written(process, engine, record), process.finish_reason(engine)
        _note_end(process, engine, record)
    payload = process.answers.plain(job, written, reason)
    try:
        await connection.send(json_answer(None if job.spoiled else payload))
    except ClientGone:
        record.client_gone = True
    await _hold(process.settings.answer_hold_seconds)


async def _stream(
    process: ServerProcess,
    engine: Engine,
    connection: Connection,
    job: Job,
    record: GenerationRecord,
) -> None:
    await connection.send(process.answers.stream_headers)
    if not process.has_model:
        _begin(process, engine, job, record)
        if process.settings.newer:
            await _hold(process.settings.first_event_seconds)
        else:
            await _pour(process, engine, connection, job, record, lambda: ("", True))
    elif not _begin(process, engine, job, record) or not engine.running:
        # An aborted request shows whatever the previous generation left in the token buffer.
        await _pour(process, engine, connection, job, record, lambda: (engine.text, True))
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.write)
            await _pour(
                process,
                engine,
                connection,
                job,
                record,
                lambda: (engine.text, not engine.running),
            )
    if record.outcome == "running":
        _note_end(process, engine, record)
    await _hold(process.settings.stream_hold_seconds)


def _begin(process: ServerProcess, engine: Engine, job: Job, record: GenerationRecord) -> bool:
    """Start the engine on a job; false if nothing is generated for it."""
    alone = engine is process.engine
    if alone:
        process.current_genkey = job.genkey
    if not process.has_model:
        record.outcome = "completed"
        return False
    if alone and process.pending_abort_key and process.pending_abort_key == job.genkey:
        process.pending_abort_key = ""
        record.outcome = "skipped"
        return False
    plan, record.prompt_tokens, prompt = process.plan(job)
    process.observations.started_total += 1
    engine.begin(plan, record.prompt_tokens, process.seed_of(job), prompt)
    record.read_tokens = engine.to_read
    return True


def _note_end(process: ServerProcess, engine: Engine, record: GenerationRecord) -> None:
    """Write down how the generation that has just ended went."""
    observations = process.observations
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
    engine: Engine,
    connection: Connection,
    job: Job,
    record: GenerationRecord,
    look: Callable[[], tuple[str, bool]],
) -> None:
    """Send the text as it appears in the token buffer, until the generation has finished.

    Args:
        process: The server.
        engine: Writes the text.
        connection: The client's connection.
        job: What was asked.
        record: Where a vanished client is noted.
        look: Gives the text so far, and whether that is all of it.
    """
    settings, answers = process.settings, process.answers
    await _hold(settings.first_event_seconds)
    sent, events, cut = "", 0, process.faults.next_cut()
    try:
        while True:
            text, finished = look()
            if len(text) > len(sent) or finished:
                if events == cut:
                    connection.cut(reset=process.faults.cut_with_reset)
                written = replace(_written(process, engine, record), text=text)
                if not finished:
                    pieces = answers.more(job, sent, written)
                elif process.faults.next_end_left_out(aborted=engine.aborted):
                    pieces = answers.more(job, sent, written) if len(text) > len(sent) else ()
                else:
                    pieces = answers.end(job, sent, written, process.finish_reason(engine))
                for piece in pieces:
                    await connection.send(piece)
                sent = text
                events += 1
            if finished:
                return
            await trio.sleep(settings.poll_seconds or _LEAST_POLL_SECONDS)
    except ClientGone:
        record.client_gone = True
        engine.abort()
        await _hold(settings.gone_client_seconds)


async def _hold(seconds: float) -> None:
    if seconds:
        await trio.sleep(seconds)
