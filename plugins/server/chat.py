"""From a prompt group to chat requests, and from replies to responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.records import Decoding, Picture, Prompt, PromptGroup, Response
from plugins.server.exchange import Reply
from plugins.server.pictures import data_url, shrunk
from plugins.server.settings import Images

#: As many of the likeliest first tokens as any server lists.
TOP_LOGPROBS = 20
#: What tokenizers write in place of a space, where a server does not decode it.
_SPACES = " \t\r\n\u2581\u0120"


def picture_urls(group: PromptGroup, images: Images) -> dict[str, str]:
    """Digest of a picture -> its data URL, of every picture that the group shows; takes a while."""
    shown = {part.digest: part for part in group.content if isinstance(part, Picture)}
    return {
        digest: data_url(shrunk(picture.pixels, images.max_side), images.format)
        for digest, picture in shown.items()
    }


def messages(
    group: PromptGroup, prompt: Prompt, urls: Mapping[str, str], images: Images
) -> list[dict[str, Any]]:
    """The chat of one question.

    Texts that touch are joined: servers differ in what they put between two parts, and the question must
    follow the group's text as the protocol wrote it.
    """
    content: list[dict[str, Any]] = []
    for part in (*group.content, prompt.text):
        if isinstance(part, Picture):
            image = {"url": urls[part.digest], "detail": images.detail}
            content.append({"type": "image_url", "image_url": image})
        elif content and content[-1]["type"] == "text":
            content[-1]["text"] += part
        elif part:
            content.append({"type": "text", "text": part})
    system = [{"role": "system", "content": group.system}] if group.system else []
    return [*system, {"role": "user", "content": content}]


def sampling(decoding: Decoding, room: int, token_field: str) -> dict[str, Any]:
    """The part of a request that says how is decoded.

    Args:
        decoding: as the protocol has it.
        room: tokens that the model needs at least, in a mode with text.
        token_field: what the server calls the limit.
    """
    settings: dict[str, Any] = {"temperature": decoding.temperature, "seed": decoding.seed}
    if decoding.mode == "logits":
        return {**settings, token_field: 1, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
    return {**settings, token_field: max(decoding.max_new_tokens, room)}


def response_of(reply: Reply, prompt: Prompt, decoding: Decoding, clean: Callable[[str], str]) -> Response:
    """A reply as the runner reads it.

    Args:
        reply: the server's.
        prompt: what was asked.
        decoding: how.
        clean: takes secrets out of a text.

    Raises:
        ValueError: the reply holds something else than text.
    """
    if not isinstance(reply.content, str | None):
        raise ValueError(f"the reply holds a {type(reply.content).__name__} in place of text")
    truncated = reply.finish == "length" and decoding.mode != "logits"
    text = reply.content or ""
    if reply.reasoning:  # the server took it out of the text; a thought that was cut has no end
        text = f"<think>{reply.reasoning}" + ("" if truncated and not text else f"</think>{text}")
    return Response(
        text=clean(text),
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        option_logprobs=option_logprobs(reply, prompt) if decoding.mode == "logits" else None,
        truncated=truncated,
    )


def option_logprobs(reply: Reply, prompt: Prompt) -> dict[str, float]:
    """Letter -> log-probability as first token, of the letters that are among those the server lists.

    With a space before it a letter is another token; the likelier of the two counts.
    """
    found: dict[str, float] = {}
    for token, chance in reply.first_token or ():
        letter = token.strip(_SPACES)
        if letter in prompt.options:
            found[letter] = max(chance, found.get(letter, chance))
    return found
