"""Every error this daemon answers with, and the one table from code to HTTP status.

    TicketError                 anything with a stable code
    ├── RequestRefused          the client's request cannot be served as it is
    ├── BackendError            a backend failed (``backends/failure.py``)
    └── StoreUnavailable        the event store cannot be read or written now

    ConfigError                 the conf file or the environment is wrong (never answered over HTTP)

Errors from other libraries are translated into these where they enter: ``backends/transport/`` for
the wire, ``config/read/load.py`` for files, ``server/`` for HTTP.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class ErrorCode(StrEnum):
    """The stable codes; automation branches on them, so none is ever renamed."""

    INVALID_REQUEST = "invalid_request"
    INVALID_INPUT_FORMAT = "invalid_input_format"
    MISSING_CONTENT_FIELD = "missing_content_field"
    PROMPT_EXTRACTION_FAILED = "prompt_extraction_failed"
    INVALID_PARAMETER = "invalid_parameter"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    BATCH_TOO_LARGE = "batch_too_large"
    REQUEST_TIMEOUT = "request_timeout"
    UNAUTHORISED = "unauthorised"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    EVENT_NOT_FOUND = "event_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    MEMORY_EXHAUSTED = "memory_exhausted"
    HOST_EXHAUSTED = "host_exhausted"
    DRAINING = "draining"
    STORE_UNAVAILABLE = "store_unavailable"
    NO_BACKEND_AVAILABLE = "no_backend_available"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELLED = "cancelled"
    INTERNAL_ERROR = "internal_error"
    API_CONNECTION_ERROR = "api_connection_error"
    API_TIMEOUT = "api_timeout"
    API_SERVER_ERROR = "api_server_error"
    API_RATE_LIMITED = "api_rate_limited"
    API_AUTHENTICATION_ERROR = "api_authentication_error"
    API_CLIENT_ERROR = "api_client_error"
    API_RESPONSE_FORMAT_ERROR = "api_response_format_error"
    API_RESPONSE_STRUCTURE_ERROR = "api_response_structure_error"
    API_STALLED = "api_stalled"
    CONTEXT_OVERFLOW = "context_overflow"


HTTP_STATUS: Mapping[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.INVALID_REQUEST: 400,
        ErrorCode.INVALID_INPUT_FORMAT: 400,
        ErrorCode.MISSING_CONTENT_FIELD: 400,
        ErrorCode.PROMPT_EXTRACTION_FAILED: 422,
        ErrorCode.INVALID_PARAMETER: 422,
        ErrorCode.UNSUPPORTED_MEDIA_TYPE: 415,
        ErrorCode.PAYLOAD_TOO_LARGE: 413,
        ErrorCode.BATCH_TOO_LARGE: 413,
        ErrorCode.REQUEST_TIMEOUT: 408,
        ErrorCode.UNAUTHORISED: 401,
        ErrorCode.FORBIDDEN: 403,
        ErrorCode.NOT_FOUND: 404,
        ErrorCode.EVENT_NOT_FOUND: 404,
        ErrorCode.METHOD_NOT_ALLOWED: 405,
        ErrorCode.IDEMPOTENCY_CONFLICT: 409,
        ErrorCode.RATE_LIMITED: 429,
        ErrorCode.QUEUE_FULL: 503,
        ErrorCode.MEMORY_EXHAUSTED: 503,
        ErrorCode.HOST_EXHAUSTED: 503,
        ErrorCode.DRAINING: 503,
        ErrorCode.STORE_UNAVAILABLE: 503,
        ErrorCode.NO_BACKEND_AVAILABLE: 503,
        ErrorCode.DEADLINE_EXCEEDED: 504,
        ErrorCode.CANCELLED: 409,
        ErrorCode.INTERNAL_ERROR: 500,
        ErrorCode.API_CONNECTION_ERROR: 502,
        ErrorCode.API_TIMEOUT: 504,
        ErrorCode.API_SERVER_ERROR: 502,
        ErrorCode.API_RATE_LIMITED: 503,
        ErrorCode.API_AUTHENTICATION_ERROR: 502,
        ErrorCode.API_CLIENT_ERROR: 502,
        ErrorCode.API_RESPONSE_FORMAT_ERROR: 502,
        ErrorCode.API_RESPONSE_STRUCTURE_ERROR: 502,
        ErrorCode.API_STALLED: 504,
        ErrorCode.CONTEXT_OVERFLOW: 422,
    }
)


FAULTS_OF_PAYLOADS = frozenset(
    {
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_INPUT_FORMAT,
        ErrorCode.MISSING_CONTENT_FIELD,
        ErrorCode.PROMPT_EXTRACTION_FAILED,
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.IDEMPOTENCY_CONFLICT,
    }
)
"""Codes that say that what the client sent is at fault, not how much or by whom."""


class TicketError(Exception):
    """An error with a stable code.

    Args:
        code: what went wrong, for programs.
        message: what went wrong and what to do about it, one sentence for people.
        details: facts that help to act on it; JSON-serialisable, never a secret or a prompt.
        retry_after_seconds: when trying again makes sense; None if it does not or is not known.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.retry_after_seconds = retry_after_seconds

    @property
    def http_status(self) -> int:
        """The status of :data:`HTTP_STATUS` for this code."""
        return HTTP_STATUS[self.code]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.value}: {self.message})"


class RequestRefused(TicketError):
    """The client's request cannot be served as it is."""


class StoreUnavailable(TicketError):
    """The event store cannot be read or written now."""

    def __init__(self, message: str, *, retry_after_seconds: float = 5.0) -> None:
        super().__init__(
            ErrorCode.STORE_UNAVAILABLE, message, retry_after_seconds=retry_after_seconds
        )
