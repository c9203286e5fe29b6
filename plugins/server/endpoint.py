"""Where a model is asked, and with which key."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from harness.errors import BadInput

KEY_VARIABLES = ("EMIT_BENCH_API_KEY", "OPENAI_API_KEY")
_PATH = "/chat/completions"
#: Parts of parameter names in which services take keys; an address is logged and shown, a key never.
_SECRETS = ("key", "token", "secret", "password", "sig", "auth")
#: A shorter key is none: who serves on their own machine makes one up, and it may be a word of an answer.
_LEAST_SECRET = 8


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, and the model to ask there."""

    url: str  #: of ``…/chat/completions``
    model: str
    key: str = field(default="", repr=False)
    named_by: str = "--endpoint"  #: the option that holds the address, for messages
    model_named_by: str = "--model"

    @property
    def shown(self) -> str:
        """The address without query."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))

    def clean(self, text: str) -> str:
        """What a server says of an error, without the key."""
        return text.replace(self.key, "***") if self.key else text

    def clean_answer(self, text: str) -> str:
        """What a model says, without the key; a short one is no secret, and is left."""
        return self.clean(text) if len(self.key) >= _LEAST_SECRET else text


def read_endpoint(
    url: str, model: str, named_by: str = "--endpoint", model_named_by: str = "--model"
) -> Endpoint:
    """The endpoint that the command line names, with the key of the environment.

    ``http://host``, ``http://host/v1`` and the full address are the same.

    Args:
        url: the address.
        model: what the server calls the model.
        named_by: the option that holds the address.
        model_named_by: the option that holds the model's name.

    Raises:
        BadInput: the address or the key is unfit; neither is repeated in the sentence.
    """
    try:
        parts = urlsplit(url.strip())
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise BadInput(f"{named_by}: it is no address; write one such as http://localhost:8000/v1")
    if "@" in parts.netloc:
        raise BadInput(f"{named_by}: leave user and password out, and set {KEY_VARIABLES[0]}")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if any(part in name.lower() for part in _SECRETS):
            raise BadInput(f"{named_by}: leave the parameter {name} out, and set {KEY_VARIABLES[0]}")
    if not model.strip():
        raise BadInput(f"{model_named_by}: it is empty; name a model that the server knows")
    path = parts.path.rstrip("/") or "/v1"
    path = path if path.endswith(_PATH) else path + _PATH
    full = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
    return Endpoint(full, model.strip(), _key(), named_by, model_named_by)


def _key() -> str:
    variable = next((name for name in KEY_VARIABLES if os.environ.get(name, "").strip()), None)
    key = os.environ[variable].strip() if variable else ""
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadInput(f"{variable}: it holds a character that no header can carry; set it again")
    return key
