"""A client of any OpenAI-compatible ``/v1/chat/completions`` endpoint.

It asks patiently: time-outs, broken connections, 429 and 5xx are tried again with growing pauses, or when the
server says. What cannot be had is a typed outcome of that one request. What no other request can have either
(a wrong key, a wrong address) ends the run with one sentence. The key goes into one header and nowhere else:
whatever the server says is cleaned of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from harness.errors import BadInput
from trainers.dataset.choice import rank
from trainers.dataset.describing.validate import Fault

if TYPE_CHECKING:
    import httpx2

KEY_VARIABLES = ("EMIT_BENCH_API_KEY", "OPENAI_API_KEY")
_PATH = "/chat/completions"
_MAX_BODY = 4 * 1024 * 1024  #: bytes of a reply; a paragraph has a few thousand
_MAX_WAIT = 300.0  #: seconds; who asks for more patience than that gets none
_MAX_PAUSE = 60.0  #: seconds between two tries, unless the server names a time
_RETRIED = frozenset({408, 409, 425, 429})
_REJECTED = frozenset({400, 413, 415, 422, 451})  #: may be due to this one request
#: So many requests given up in a row, and the rest is not asked.
HOPELESS = 20

TokenField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked."""

    url: str  #: of ``…/chat/completions``
    model: str
    key: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """The address without query, in which some services put keys."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))

    def clean(self, text: str) -> str:
        """A text without the key."""
        return text.replace(self.key, "***") if self.key else text


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a server is asked."""

    timeout: float = 120.0  #: seconds for one exchange, its transfer included
    tries: int = 5  #: of one exchange
    attempts: int = 3  #: at a text that passes the checks
    concurrency: int = 4
    pause: float = 1.0  #: seconds before the second try; doubles with each further one
    temperature: float = 0.7
    max_tokens: int = 1024
    token_field: TokenField = "max_tokens"
    max_side: int = 512  #: pixels, of pictures


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion."""

    content: object  #: text, unless the server does otherwise
    finish: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Why there is no reply."""

    fault: Fault
    reason: str


@dataclass(frozen=True, slots=True)
class _Again:
    """A try that failed for now."""

    why: GaveUp
    wait: float | None = None  #: seconds that the server asks for


def read_endpoint(url: str, model: str) -> Endpoint:
    """The endpoint that the command line names, with the key of the environment.

    ``http://host``, ``http://host/v1`` and the full address are the same.

    Raises:
        BadInput: the address or the key is unfit; neither is repeated in the sentence.
    """
    try:
        parts = urlsplit(url.strip())
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise BadInput("--endpoint: it is no address; write one such as http://localhost:8000/v1")
    if "@" in parts.netloc:
        raise BadInput(f"--endpoint: leave user and password out, and set {KEY_VARIABLES[0]}")
    if not model.strip():
        raise BadInput("--model: it is empty; name a model that the server knows")
    path = parts.path.rstrip("/") or "/v1"
    path = path if path.endswith(_PATH) else path + _PATH
    variable = next((name for name in KEY_VARIABLES if os.environ.get(name, "").strip()), None)
    key = os.environ[variable].strip() if variable else ""
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadInput(f"{variable}: it holds a character that no header can carry; set it again")
    return Endpoint(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), model.strip(), key)


class Client:
    """Asks one endpoint; an async context manager. ``given_up`` counts failures since the last reply."""

    def __init__(self, endpoint: Endpoint, settings: ClientSettings) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.given_up = 0
        self.last = ""
        self._http: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Client:
        import httpx2

        headers = {"Authorization": f"Bearer {self.endpoint.key}"} if self.endpoint.key else {}
        # One exchange has one time limit, which holds for its transfer too: see _exchange.
        self._http = httpx2.AsyncClient(headers=headers, timeout=None, follow_redirects=False)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def ask(self, messages: list[dict[str, Any]], seed: int) -> Reply | GaveUp:
        """The reply to a chat, after as many tries as it takes and is allowed.

        Raises:
            BadInput: no request can succeed; the sentence says what the server said.
        """
        if self.given_up >= HOPELESS:
            return GaveUp(Fault.NOT_ASKED, f"the server had failed {HOPELESS} times in a row ({self.last})")
        body = {
            "model": self.endpoint.model,
            "messages": messages,
            "temperature": self.settings.temperature,
            self.settings.token_field: self.settings.max_tokens,
            "seed": seed,
        }
        said = await self._patiently(body, seed)
        self.given_up = self.given_up + 1 if isinstance(said, GaveUp) else 0
        self.last = said.reason if isinstance(said, GaveUp) else ""
        return said

    async def _patiently(self, body: Mapping[str, Any], seed: int) -> Reply | GaveUp:
        number = 0
        while True:
            number += 1
            said = await self._try(body)
            if not isinstance(said, _Again):
                return said
            if number == self.settings.tries:
                return GaveUp(said.why.fault, f"{said.why.reason}; tried {number} times")
            pause = self._pause(number, seed) if said.wait is None else said.wait
            if pause > _MAX_WAIT:
                return GaveUp(said.why.fault, f"{said.why.reason}; it asks to wait {pause:,.0f} s")
            await asyncio.sleep(pause)

    def _pause(self, number: int, seed: int) -> float:
        """Seconds after the n-th try, spread so that requests do not come back all at once."""
        spread = 0.5 + rank(seed, "pause", number) / 2**64
        return min(_MAX_PAUSE, self.settings.pause * 2.0 ** (number - 1)) * spread

    async def _try(self, body: Mapping[str, Any]) -> Reply | GaveUp | _Again:
        import httpx2

        try:
            async with asyncio.timeout(self.settings.timeout):
                status, headers, content = await self._exchange(body)
        except (TimeoutError, httpx2.TimeoutException):
            return _Again(GaveUp(Fault.TIMED_OUT, f"no reply within {self.settings.timeout:g} s"))
        except httpx2.DecodingError:
            return _Again(GaveUp(Fault.UNREADABLE, "the reply's compression is broken"))
        except httpx2.TransportError as error:
            said = self.endpoint.clean(str(error))[:200]
            reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
            return _Again(GaveUp(Fault.UNREACHABLE, reason))
        if content is None:
            return _Again(GaveUp(Fault.UNREADABLE, f"the reply is longer than {_MAX_BODY:,} bytes"))
        if status != 200:
            return self._refused(status, headers, content)
        return _reply(content) or _Again(GaveUp(Fault.UNREADABLE, "the reply is no chat completion"))

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

    def _refused(self, status: int, headers: Mapping[str, str], content: bytes) -> GaveUp | _Again:
        said = _message(content)
        told = f": {self.endpoint.clean(said)[:200]}" if said else ""
        reason = f"the server answers {status}{told}"
        if status in _RETRIED or status >= 500:
            fault = Fault.OVERLOADED if status == 429 else Fault.SERVER_ERROR
            return _Again(GaveUp(fault, reason), _retry_after(headers))
        if status in _REJECTED:
            return GaveUp(Fault.REJECTED, reason)
        remedy = "check --endpoint and --model"
        if status in (401, 403):
            remedy = f"set {KEY_VARIABLES[0]} to a key that may use {self.endpoint.model}"
        elif 300 <= status < 400:
            remedy = "it wants another address; pass that as --endpoint"
        raise BadInput(f"{self.endpoint.shown}: {reason}; {remedy}")


def _reply(content: bytes) -> Reply | None:
    """A chat completion's parts, or None where the bytes are none."""
    try:
        table = json.loads(content)
        choice = table["choices"][0]
        message = choice["message"]
        spoken = message.get("content")
        finish = choice.get("finish_reason")
        usage = table.get("usage")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if message.get("refusal"):
        finish = "content_filter"
        spoken = str(message["refusal"])
    if isinstance(spoken, list):  # parts, as in requests
        texts = [part.get("text") if isinstance(part, dict) else None for part in spoken]
        strings = [text for text in texts if isinstance(text, str)]
        spoken = "".join(strings) if len(strings) == len(spoken) else spoken
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        content=spoken,
        finish=finish if isinstance(finish, str) else "stop",
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
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
