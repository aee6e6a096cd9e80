"""What version 1.115 tells without the generation lock, beyond or otherwise than 1.76."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .templates import CHAT_TEMPLATE
from .wire import Request, bad_gateway, json_answer, newer_not_found, text_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .process import ServerProcess

__all__ = ["LIST_OPTIONS", "NEWER_GETS", "answer_newer_get", "newer_perf"]

FULL_VERSION = "1.115.1"
LIST_OPTIONS = ("big.kcpps", "small.kcpps", "initial_model", "unload_model")
"""What an administrator can have loaded."""
_LACKING = (
    "txt2img",
    "vision",
    "audio",
    "transcribe",
    "multiplayer",
    "websearch",
    "tts",
    "embeddings",
    "music",
    "fs",
)
_ROUTED = ("small.kcpps", "initial_model", "unload_model")


def newer_perf(process: ServerProcess, perf: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``perf`` tells, with what is told besides, in the server's order."""
    engine = process.engine
    seconds = (engine.last_process_seconds, engine.last_eval_seconds)
    tokens = (engine.last_input_count, engine.last_token_count)
    speeds = [number / took if took else 0 for number, took in zip(tokens, seconds, strict=True)]
    return {
        "last_process": perf["last_process"],
        "last_eval": perf["last_eval"],
        "last_token_count": perf["last_token_count"],
        "last_input_count": engine.last_input_count,
        "last_process_time": seconds[0],
        "last_eval_time": seconds[1],
        "last_process_speed": speeds[0],
        "last_eval_speed": speeds[1],
        "last_seed": perf["last_seed"],
        "last_draft_success": 0,
        "last_draft_failed": 0,
        "total_gens": perf["total_gens"],
        "stop_reason": perf["stop_reason"],
        "total_img_gens": 0,
        "total_tts_gens": 0,
        "total_transcribe_gens": 0,
        **{
            name: perf[name]
            for name in ("queue", "idle", "hordeexitcounter", "uptime", "idletime", "quiet")
        },
    }


def answer_newer_get(process: ServerProcess, request: Request) -> bytes | None:
    """Answer a GET that 1.76 does not know; None if this version does not know it either."""
    if process.away:
        return bad_gateway()
    for suffix, answer in NEWER_GETS:
        if request.path.endswith(suffix):
            return answer(process)
    return None


def not_found(request: Request) -> bytes:
    """Answer a GET of a path that nobody knows."""
    return newer_not_found(request.path)


def _version(process: ServerProcess) -> bytes:
    settings = process.settings
    return json_answer(
        {
            "result": "KoboldCpp",
            "version": FULL_VERSION,
            "protected": process.protected,
            "llm": process.has_model,
            **dict.fromkeys(_LACKING, False),
            "fsMode": "memory",
            "savedata": False,
            "admin": 1 if settings.admin else 0,
            "router": settings.router,
            "guidance": False,
            "jinja": settings.jinja,
            "mcp": False,
            "hasServerSaving": False,
            "hasAdminWithHF": False,
            "embeddingModel": "",
            "canSearchDocuments": False,
            "hasOpenLumaraEnabled": False,
            "hasOpenLumaraAuthenticated": True,
        }
    )


def _props(process: ServerProcess) -> bytes:
    return json_answer(
        {
            "chat_template": CHAT_TEMPLATE if process.has_model else "",
            "id": 0,
            "id_task": -1,
            "total_slots": 1,
            "modalities": {"vision": False, "audio": False},
            "model_path": process.model,
            "n_ctx": process.context_tokens,
            "default_generation_settings": {"n_ctx": process.context_tokens},
        }
    )


def _models(process: ServerProcess) -> bytes:
    names = [process.model, *(_ROUTED if process.settings.router else ())]
    entries = [
        {
            "id": name,
            "object": "model",
            "created": process.created(),
            "owned_by": "koboldcpp",
            "permission": [],
            "root": "koboldcpp",
        }
        for name in names
    ]
    return json_answer({"object": "list", "data": entries})


def _options(process: ServerProcess) -> bytes:
    return json_answer(list(LIST_OPTIONS) if process.settings.admin else [])


NEWER_GETS: tuple[tuple[str, Callable[[ServerProcess], bytes]], ...] = (
    ("/api/extra/version", _version),
    ("/props", _props),
    ("/v1/models", _models),
    ("/ping", lambda _process: json_answer({"status": "healthy"})),
    ("/api/admin/health", lambda _process: text_answer("true")),
    ("/api/admin/list_options", _options),
)
