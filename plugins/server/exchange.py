"""One request to one endpoint, and what came of it: a reply, or a typed refusal."""

from __future__ import annotations

import asyncio
import enum
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from plugins.server.endpoint import KEY_VARIABLES, Endpoint

if TYPE_CHECKING:
    import httpx2

_MAX_BODY = 4 * 1024 * 1024  #: bytes of a reply; a paragraph has a few thousand
_CONNECT = 10.0  #: seconds within which a server must take a connection
_RETRIED = frozenset({408, 409, 425, 429})
_CROWDED = frozenset({429, 503})  #: the server has too much to do
_REJECTED = frozenset({400, 413, 415, 422, 451})  #: may be due to this one request


class Trouble(enum.StrEnum):
    """Why there is no reply."""

    TIMED_OUT = "timed-out"
    UNREACHABLE = "unreachable"
    OVERLOADED = "overloaded"  #: 429 and 503
    SERVER_ERROR = "server-error"  #: other 5xx
    UNREADABLE = "unreadable"  #: the reply is no chat completion
    REJECTED = "rejected"  #: the server does not take this request
    NOT_ASKED = "not-asked"  #: the server had failed too often in a row


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion."""

    content: object  #: text, unless the server does otherwise
    finish: str
    prompt_tokens: int
    completion_tokens: int
    reasoning: str = ""  #: where the server takes it out of the content
    #: Of the first token: the likeliest tokens and their log-probabilities, as the server lists them. None
    #: where the server says nothing of log-probabilities.
    first_token: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Why there is no reply."""

    trouble: Trouble
    reason: str


@dataclass(frozen=True, slots=True)
class Again:
    """A try that failed for now."""

    why: GaveUp
    wait: float | None = None  #: seconds that the server asks for


class Line:
    """The connections to one endpoint; an async context manager.

    Args:
        endpoint: who is asked.
        timeout: seconds for one exchange, its transfer included.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._http: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Line:
        import httpx2

        headers = {"Authorization": f"Bearer {self.endpoint.key}"} if self.endpoint.key else {}
        # One exchange has one time limit, which holds for its transfer too: see ask.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        timeout = httpx2.Timeout(None, connect=_CONNECT)
        self._http = httpx2.AsyncClient(
            headers=headers, timeout=timeout, limits=limits, follow_redirects=False
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def ask(self, body: Mapping[str, Any]) -> Reply | GaveUp | Again:
        """Send a request once.

        Raises:
            BadInput: no request can succeed; the sentence says what the server said.
        """
        import httpx2

        try:
            async with asyncio.timeout(self.timeout):
                status, headers, content = await self._exchange(body)
        except httpx2.ConnectTimeout:
            return Again(GaveUp(Trouble.UNREACHABLE, f"no connection within {_CONNECT:g} s"))
        except (TimeoutError, httpx2.TimeoutException):
            return Again(GaveUp(Trouble.TIMED_OUT, f"no reply within {self.timeout:g} s"))
        except httpx2.DecodingError:
            return Again(GaveUp(Trouble.UNREADABLE, "the reply's compression is broken"))
        except httpx2.TransportError as error:
            said = self.endpoint.clean(str(error))[:200]
            reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
            return Again(GaveUp(Trouble.UNREACHABLE, reason))
        if content is None:
            return Again(GaveUp(Trouble.UNREADABLE, f"the reply is longer than {_MAX_BODY:,} bytes"))
        if status != 200:
            return self._refused(status, headers, content)
        return read_reply(content) or Again(GaveUp(Trouble.UNREADABLE, "the reply is no chat completion"))

    async def _exchange(self, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes | None]:
        """Status, headers and body; None for a body that does not end."""
        assert self._http is not None
        async with self._http.stream("POST", self.endpoint.url, json=body) as response:
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _MAX_BODY:
                    return response.status_code, response.headers, None
            return response.status_code, response.headers, bytes(content)

    def _refused(self, status: int, headers: Mapping[str, str], content: bytes) -> GaveUp | Again:
        asked = self.endpoint
        said = _message(content)
        told = f": {asked.clean(said)[:200]}" if said else ""
        reason = f"the server answers {status}{told}"
        if status in _RETRIED or status >= 500:
            trouble = Trouble.OVERLOADED if status in _CROWDED else Trouble.SERVER_ERROR
            return Again(GaveUp(trouble, reason), _retry_after(headers))
        if status in _REJECTED:
            return GaveUp(Trouble.REJECTED, reason)
        remedy = f"check {asked.named_by} and {asked.model_named_by}"
        if status in (401, 403):
            remedy = f"set {KEY_VARIABLES[0]} to a key that may use {asked.model}"
        elif 300 <= status < 400:
            remedy = f"it wants another address; pass that as {asked.named_by}"
        raise BadInput(f"{asked.shown}: {reason}; {remedy}")


def read_reply(content: bytes) -> Reply | None:
    """A chat completion's parts, or None where the bytes are none."""
    try:
        table = json.loads(content)
        choice = table["choices"][0]
        message = choice["message"]
        spoken = message.get("content")
        finish = choice.get("finish_reason")
        usage = table.get("usage")
        chances = choice.get("logprobs")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if message.get("refusal"):
        finish = "content_filter"
        spoken = str(message["refusal"])
    if isinstance(spoken, list):  # parts, as in requests
        texts = [part.get("text") if isinstance(part, dict) else None for part in spoken]
        strings = [text for text in texts if isinstance(text, str)]
        spoken = "".join(strings) if len(strings) == len(spoken) else spoken
    thoughts = (message.get(name) for name in ("reasoning_content", "reasoning"))
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        content=spoken,
        finish=finish if isinstance(finish, str) else "stop",
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
        reasoning=next((text for text in thoughts if isinstance(text, str) and text), ""),
        first_token=_first_token(chances),
    )


def _first_token(chances: object) -> tuple[tuple[str, float], ...] | None:
    tokens = chances.get("content") if isinstance(chances, dict) else None
    if not isinstance(tokens, list):
        return None
    listed = tokens[0].get("top_logprobs") if tokens and isinstance(tokens[0], dict) else None
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    found = [(row.get("token"), row.get("logprob")) for row in rows]
    return tuple(
        (token, float(chance))
        for token, chance in found
        # Neither infinities nor NaN, which no JSON should hold and ours would keep.
        if isinstance(token, str) and isinstance(chance, int | float) and abs(chance) < float("inf")
    )


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**40 else 0


def _message(content: bytes) -> str:
    """What a server says about an error, on one line; empty where it says it in no known way."""
    try:
        table = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    for keys in (("error", "message"), ("error",), ("message",), ("detail",)):
        found: Any = table
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, str) and found.strip():
            return " ".join("".join(c if c.isprintable() else " " for c in found).split())
    return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: it says so in seconds or as a date."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
