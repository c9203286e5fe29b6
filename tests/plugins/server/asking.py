"""How the client's tests ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugins.server.client import Asking
from plugins.server.endpoint import Endpoint
from tests.servers import Act, Asked, Server

KEY = "sk-do-not-tell-anyone"
CHAT = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}]


def asking(**changes: Any) -> Asking:
    return Asking(**{"timeout": 5.0, "tries": 3, "pause": 0.01, **changes})


def at(server: Server) -> Endpoint:
    return Endpoint(f"{server.url}/v1/chat/completions", "m", KEY)


async def body() -> dict[str, Any]:
    return {"model": "m", "messages": CHAT}


def in_turn(*acts: Act) -> Callable[[int, Asked], Act]:
    """The first act first, and the last for ever."""
    return lambda number, asked: acts[min(number, len(acts) - 1)]
