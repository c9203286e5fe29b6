"""A model behind endpoints: many questions on their way, each group given back when it is whole."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from harness.records import (
    UNITS_AHEAD,
    Decoding,
    GroupResult,
    Model,
    Prompt,
    PromptGroup,
    Response,
    Unit,
    reason_of,
)
from plugins.checkpoint import Chat
from plugins.server.background import Background
from plugins.server.chat import messages, picture_urls, response_of, sampling
from plugins.server.client import Client
from plugins.server.exchange import GaveUp, Reply, Trouble
from plugins.server.settings import Settings

_NO_LOGPROBS = "--mode logits needs them: use --mode direct, or a server that lists the likeliest tokens"
#: A group is on its way, or came back.
_Sent = Future[GroupResult]


@dataclass(frozen=True, slots=True)
class _Size:
    """What a group that is on its way takes up."""

    unit: int
    questions: int


class ServedModel(Model):
    """Asks servers; the caller's thread draws units and gives results, another one waits for replies.

    Args:
        settings: the model, its servers, and how they are asked.
        chat: what is particular about the family's chat.
        client: asks; made of the settings unless given.
    """

    def __init__(self, settings: Settings, chat: Chat | None = None, client: Client | None = None) -> None:
        self.settings = settings
        self.chat = chat or Chat()
        self.client = client or Client(settings.endpoints, settings.asking)
        self._background: Background | None = None
        self._images_sent = 0
        self._lists_tokens = False  # whether the server has ever given log-probabilities

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        """One response per prompt; raises RuntimeError when one of them has none."""
        (result,) = next(iter(self.stream([[group]], decoding)))
        if result.reason:
            raise RuntimeError(result.reason)
        return result.responses

    def stream(self, units: Iterable[Unit], decoding: Decoding) -> Iterator[Sequence[GroupResult]]:
        """Groups as they become whole; see :meth:`harness.records.Model.stream`.

        Raises:
            BadInput: no server can be reached, one takes no request of ours, or log-probabilities are wanted
                and not offered.
        """
        background = self._started()
        source = enumerate(units)
        done: queue.SimpleQueue[_Sent] = queue.SimpleQueue()
        pending: dict[_Sent, _Size] = {}
        more = True
        try:
            while more or pending:
                # Units are drawn in this thread, which may wait for images: what is done goes first.
                finished = _drain(done, wait=bool(pending) and not (more and self._hungry(pending.values())))
                for sent in finished:
                    del pending[sent]
                if finished:
                    yield from _results(finished)
                    continue
                number, unit = next(source, (0, None))
                more = unit is not None
                for group in unit or ():
                    sent = background.submit(self._answer(group, decoding))
                    pending[sent] = _Size(number, len(group.prompts))
                    sent.add_done_callback(done.put)
        finally:
            for sent in pending:
                sent.cancel()

    def counters(self) -> dict[str, int]:
        """What was sent and came back; ``spend_micro`` in millionths of the prices' currency."""
        counts, prices = self.client.counts, self.settings.prices
        found = {
            "requests": counts.requests,
            "retries": counts.retries,
            "images_sent": self._images_sent,
            "prompt_tokens": counts.prompt_tokens,
            "completion_tokens": counts.completion_tokens,
        }
        if prices is not None:
            spent = counts.prompt_tokens * prices[0] + counts.completion_tokens * prices[1]
            found["spend_micro"] = round(spent)
        return found

    def close(self) -> None:
        """Break off what is on its way, and close the connections."""
        background, self._background = self._background, None
        if background is not None:
            background.close(self.client.__aexit__())

    def _started(self) -> Background:
        if self._background is None:
            self._background = Background()
            self._background.submit(self.client.__aenter__()).result()
        return self._background

    def _hungry(self, pending: Iterable[_Size]) -> bool:
        """Whether servers could run dry before the next unit's images are open."""
        sizes = list(pending)
        if len({size.unit for size in sizes}) >= UNITS_AHEAD:
            return False
        return sum(size.questions for size in sizes) < 2 * self.settings.asking.concurrency

    async def _answer(self, group: PromptGroup, decoding: Decoding) -> GroupResult:
        if decoding.mode in self.chat.opening:
            raise self.client.end(
                f"in mode {decoding.mode} this model is asked behind {self.chat.opening[decoding.mode]!r}, "
                "with which no server begins an answer; use --mode direct, or another backend"
            )
        if group.raw:
            raise self.client.end(
                "this protocol's prompts are bare texts, and a server writes a chat's frame around them; use "
                "another protocol, or another backend"
            )
        urls = _Urls(group, self.settings)
        try:
            async with asyncio.TaskGroup() as questions:
                tasks = [
                    questions.create_task(self._ask(group, prompt, decoding, urls))
                    for prompt in group.prompts
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        said = [task.result() for task in tasks]
        if all(isinstance(one, str) for one in said):
            return GroupResult(group.id, reason=str(said[0]))
        # A question that failed takes none of the answers along that were paid for.
        return GroupResult(
            group.id,
            tuple(Response("", 0, 0, reason=one) if isinstance(one, str) else one for one in said),
        )

    async def _ask(
        self, group: PromptGroup, prompt: Prompt, decoding: Decoding, urls: _Urls
    ) -> Response | str:
        """A response, or why there is none."""
        settings = self.settings

        async def body() -> dict[str, object]:
            shown = await urls()
            self._images_sent += sum(not isinstance(part, str) for part in group.content)
            return {
                "model": settings.model,
                "messages": messages(group, prompt, shown, settings.images),
                **sampling(decoding, self.chat.room.get(decoding.mode, 0), settings.token_field),
            }

        try:
            said = await self.client.ask(body, group.id)
            if isinstance(said, GaveUp):
                self._refuse_if_hopeless(said, decoding)
                return said.reason
            if decoding.mode == "logits":
                self._check_logprobs(said)
            return response_of(said, prompt, decoding, settings.endpoints[0].clean_answer)
        except (ValueError, OSError, MemoryError) as error:
            return reason_of(error)

    def _refuse_if_hopeless(self, said: GaveUp, decoding: Decoding) -> None:
        places = ", ".join(endpoint.shown for endpoint in self.settings.endpoints)
        if said.trouble is Trouble.UNREACHABLE and not self.client.heard:
            raise self.client.end(
                f"{places}: no answer ({said.reason}); start the server, or correct --base-url"
            )
        if decoding.mode == "logits" and not self._lists_tokens and "logprob" in said.reason.lower():
            raise self.client.end(f"{places}: {said.reason}; {_NO_LOGPROBS}")

    def _check_logprobs(self, reply: Reply) -> None:
        self._lists_tokens |= reply.first_token is not None
        if not self._lists_tokens:
            places = ", ".join(endpoint.shown for endpoint in self.settings.endpoints)
            raise self.client.end(f"{places}: the reply holds no log-probabilities; {_NO_LOGPROBS}")


class _Urls:
    """A group's images as data URLs, made when the first of its questions is sent, and once."""

    def __init__(self, group: PromptGroup, settings: Settings) -> None:
        self._make: Callable[[], dict[str, str]] = lambda: picture_urls(group, settings.images)
        self._made: dict[str, str] | None = None
        self._lock = asyncio.Lock()

    async def __call__(self) -> dict[str, str]:
        """Digest -> URL."""
        async with self._lock:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
        return self._made


def _drain(done: queue.SimpleQueue[_Sent], wait: bool) -> list[_Sent]:
    """What is done: all there is, and at least one when it is worth waiting."""
    found = [done.get()] if wait else []
    while not done.empty():
        found.append(done.get())
    return found


def _results(finished: Iterable[_Sent]) -> Iterator[Sequence[GroupResult]]:
    """What came back; then what ends the run, if anything does."""
    errors = [error for sent in finished if (error := sent.exception()) is not None]
    results = [sent.result() for sent in finished if sent.exception() is None]
    if results:
        yield results
    if errors:
        raise errors[0]
