"""How a server is asked for texts; what asks it is :mod:`plugins.server.client`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plugins.server.client import Asking

TokenField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a server is asked."""

    timeout: float = 120.0  #: seconds for one exchange, its transfer included
    tries: int = 5  #: of one exchange
    attempts: int = 3  #: at a text that passes the checks
    concurrency: int = 4
    pause: float = 1.0  #: seconds before the second try at most; doubles with each further one
    temperature: float = 0.7
    max_tokens: int = 1024
    token_field: TokenField = "max_tokens"
    max_side: int = 512  #: pixels, of pictures

    @property
    def asking(self) -> Asking:
        """The client's part of it."""
        return Asking(self.timeout, self.tries, self.pause, self.concurrency)

    def body(self, model: str, messages: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
        """A request's content."""
        return {
            "model": model,
            "messages": list(messages),
            "temperature": self.temperature,
            self.token_field: self.max_tokens,
            "seed": seed,
        }
