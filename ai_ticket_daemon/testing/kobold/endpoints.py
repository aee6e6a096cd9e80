"""The endpoints that do not wait for the generation lock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from zlib import crc32

import trio

from .generate import tokenize
from .lenient import prompt_of_count
from .newer_endpoints import answer_newer_get, newer_perf, not_found
from .wire import GET_NOT_FOUND, UNAUTHORIZED, json_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import ServerProcess
    from .wire import Request

__all__ = ["answer_get", "answer_lock_free_post", "is_lock_free_post"]

_BEGIN_OF_TEXT = 1
_ABORT, _COUNT = "/api/extra/abort", "/api/extra/tokencount"
_CHECK = "/api/extra/generate/check"


def answer_get(process: ServerProcess, request: Request) -> bytes:
    """Answer a GET; only the end of its path counts."""
    newer = process.settings.newer
    if newer and (answer_here := answer_newer_get(process, request)):
        return answer_here
    for suffix, answer in _GETS:
        if request.path.endswith(suffix):
            return answer(process, request)
    return not_found(request) if newer else GET_NOT_FOUND


def is_lock_free_post(path: str) -> bool:
    """Whether a POST to this path is answered beside a running generation."""
    return path.endswith((_ABORT, _COUNT, _CHECK))


async def answer_lock_free_post(process: ServerProcess, request: Request, body: bytes) -> bytes:
    """Answer an abort, a token count or a check."""
    if not process.authorized(request):
        return UNAUTHORIZED
    if request.path.endswith(_COUNT):
        return await _count_tokens(process, body)
    key = _genkey(body)
    if request.path.endswith(_CHECK):
        return _text_so_far(process, key)
    return await _abort(process, key)


def _perf(process: ServerProcess, _request: Request) -> bytes:
    engine, now = process.engine, trio.current_time()
    busy = process.faults.busy
    perf = {
        "last_process": engine.last_process_ms,
        "last_eval": engine.last_eval_ms,
        "last_token_count": engine.last_token_count,
        "last_seed": engine.last_seed,
        "total_gens": engine.total_generations,
        "stop_reason": engine.stop_reason,
        "total_img_gens": 0,
        "queue": process.settings.queue_limit if busy else process.lock.waiting,
        "idle": 0 if busy or process.lock.held else 1,
        "hordeexitcounter": -1,
        "uptime": now - process.started_at,
        "idletime": now - process.last_request_at,
        "quiet": True,
    }
    return json_answer(newer_perf(process, perf) if process.settings.newer else perf)


def _model(process: ServerProcess, request: Request) -> bytes:
    shown = process.model if process.authorized(request) else "koboldcpp/protected-model"
    return json_answer({"result": shown})


def _models(process: ServerProcess, _request: Request) -> bytes:
    entry = {
        "id": process.model,
        "object": "model",
        "created": process.created(),
        "owned_by": "koboldcpp",
        "permission": [],
        "root": "koboldcpp",
    }
    return json_answer({"object": "list", "data": [entry]})


def _version(process: ServerProcess, _request: Request) -> bytes:
    return json_answer(
        {
            "result": "KoboldCpp",
            "version": "1.76",
            "protected": process.protected,
            "txt2img": False,
            "vision": False,
            "transcribe": False,
        }
    )


def _info_version(_process: ServerProcess, _request: Request) -> bytes:
    return json_answer({"result": "1.2.5"})


def _max_length(process: ServerProcess, _request: Request) -> bytes:
    settings = process.settings
    return json_answer({"value": 1024 if settings.newer else settings.max_length_tokens})


def _advertised_context(process: ServerProcess, _request: Request) -> bytes:
    return json_answer({"value": min(process.context_tokens, process.settings.context_cap_tokens)})


def _true_context(process: ServerProcess, _request: Request) -> bytes:
    return json_answer({"value": process.context_tokens})


def _check_without_body(process: ServerProcess, request: Request) -> bytes:
    return _text_so_far(process, "") if process.authorized(request) else UNAUTHORIZED


_GETS: tuple[tuple[str, Callable[[ServerProcess, Request], bytes]], ...] = (
    ("/api/extra/perf", _perf),
    ("/api/v1/model", _model),
    ("/v1/models", _models),
    ("/api/extra/true_max_context_length", _true_context),
    ("/api/v1/config/max_context_length", _advertised_context),
    ("/api/v1/config/max_length", _max_length),
    ("/api/v1/info/version", _info_version),
    ("/api/extra/version", _version),
    (_CHECK, _check_without_body),
)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _genkey(body: bytes) -> str:
    """The genkey in a body; a body that cannot be read counts as no key."""
    key = (_json_object(body) or {}).get("genkey", "")
    return key if isinstance(key, str) else ""


def _text_so_far(process: ServerProcess, key: str) -> bytes:
    readable = key == process.current_genkey and (key != "" or process.lock.waiting == 0)
    return json_answer({"results": [{"text": process.engine.text if readable else ""}]})


async def _abort(process: ServerProcess, key: str) -> bytes:
    if process.batch:  # It says yes, and nothing ends.
        await trio.sleep(process.settings.abort_answer_seconds)
        return json_answer({"success": "true", "done": "true"})
    if (key and key == process.current_genkey) or (not key and process.lock.waiting == 0):
        process.engine.abort()
        await trio.sleep(process.settings.abort_answer_seconds)
        return json_answer({"success": "true", "done": "true"})
    if key and process.lock.waiting > 0:
        process.pending_abort_key = key
        return json_answer({"success": "true", "done": "false"})
    return json_answer({"success": "false", "done": "false"})


async def _count_tokens(process: ServerProcess, body: bytes) -> bytes:
    """Count through the one buffer all counts share, so that parallel counts spoil each other."""
    request = _json_object(body)
    prompt = None if request is None else request.get("prompt", "")
    if request is None or not isinstance(prompt, str):
        return json_answer({"value": -1}, status=400)
    told = {}
    if process.settings.newer:
        prompt = prompt_of_count(request, process.settings)
        told = {"prompt": prompt}
    if not process.has_model:
        return json_answer({"value": 0, "ids": [], **told})
    ids = [200 + crc32(token.encode()) % 48_952 for token in tokenize(prompt)]
    if request.get("special", True) and not prompt.startswith("<|im_start|>"):
        ids.insert(0, _BEGIN_OF_TEXT)
    process.token_buffer = ids
    await trio.sleep(process.settings.tokencount_seconds)
    found, count = process.token_buffer, len(ids)
    if found is not ids and process.accidents.random() < process.settings.wrong_count_chance:
        count = len(found)
    found = (found + ids[len(found) :])[:count]
    return json_answer({"value": count, "ids": found, **told})
