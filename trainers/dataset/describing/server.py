"""Writes texts by asking a server for what the cache does not hold; a text that passes is kept at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.keys import digest_of
from harness.raw import RawDataset
from plugins.server.client import Client
from plugins.server.endpoint import Endpoint
from plugins.server.exchange import GaveUp, Reply
from trainers.dataset.choice import rank
from trainers.dataset.describing.cache import TextCache
from trainers.dataset.describing.client import ClientSettings
from trainers.dataset.describing.pictures import data_url
from trainers.dataset.describing.plan import KnowledgeTable, PlanSettings, Task, make_plan, unfit
from trainers.dataset.describing.prompts import Chat, caption, chat
from trainers.dataset.describing.validate import Checked, Fault, check
from trainers.dataset.describing.writing import Digests, Written, base_record, carry_out, save


class ServerWriter:
    """Asks an endpoint for texts, several at a time.

    Args:
        endpoint: the server and the model.
        settings: how it is asked.
        cache: where texts lie.
        digests: SHA-256 of files.
        seed: of the requests.

    Attributes:
        keys: of every text asked for so far.
        asked: number of texts that were not in the cache.
    """

    def __init__(
        self, endpoint: Endpoint, settings: ClientSettings, cache: TextCache, digests: Digests, seed: int
    ) -> None:
        self.client = Client([endpoint], settings.asking)
        self.endpoint = endpoint
        self.settings = settings
        self.cache = cache
        self.digests = digests
        self.seed = seed
        self.keys: list[str] = []
        self.asked = 0

    def __call__(self, tasks: Sequence[Task]) -> list[Checked]:
        """A text, or why there is none, for each task in order.

        Raises:
            BadInput: the server takes no request of ours, or an image cannot be read.
        """
        if not tasks:
            return []
        chats = [chat(task.request) for task in tasks]
        keys = [self._key(task, said) for task, said in zip(tasks, chats, strict=True)]
        self.keys += keys
        found = {key: Checked(text) for key in keys if (text := self.cache.text(key)) is not None}
        missing = [number for number, key in enumerate(keys) if key not in found]
        self.asked += len(missing)
        if missing:
            work = [(keys[n], tasks[n], chats[n]) for n in missing]
            found.update(zip((keys[n] for n in missing), asyncio.run(self._ask_all(work)), strict=True))
        return [found[key] for key in keys]

    def _key(self, task: Task, said: Chat) -> str:
        """What decides a text; the address is left out, for a model may move."""
        settings = self.settings
        pictures = [[self.digests(path) for path in (one.path, *one.masks)] for one in said.pictures]
        deciding = [settings.temperature, settings.max_tokens, settings.max_side]
        return digest_of(
            ["text", self.endpoint.model, deciding, said.system, said.text, pictures, task.request.number]
        )

    async def _ask_all(self, work: Sequence[tuple[str, Task, Chat]]) -> list[Checked]:
        from tqdm import tqdm

        written: list[Checked] = [Checked()] * len(work)
        waiting = iter(enumerate(work))
        failed = 0

        async def worker() -> None:
            nonlocal failed
            for number, (key, task, said) in waiting:
                written[number] = await self._ask(key, task, said)
                failed += written[number].fault is not None
                bar.set_postfix(failed=failed, refresh=False)
                bar.update()

        with tqdm(total=len(work), desc="describe", unit="text", file=sys.stderr, dynamic_ncols=True) as bar:
            async with self.client:
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(min(self.settings.concurrency, len(work))):
                            group.create_task(worker())
                except ExceptionGroup as errors:
                    raise errors.exceptions[0] from errors
        return written

    async def _ask(self, key: str, task: Task, said: Chat) -> Checked:
        """One text; a reply that fails the checks is asked for again with another seed."""
        messages = await asyncio.to_thread(self._messages, said)
        before = self.cache.replies(key)
        checked = Checked()
        for attempt in range(self.settings.attempts):
            # Seeds of earlier runs are not tried again: they gave what was refused.
            reply = await self._reply(messages, rank(self.seed, key, before + attempt) % 2**31)
            if isinstance(reply, GaveUp):
                return Checked(fault=Fault(reply.trouble), reason=reply.reason)
            checked = check(reply.content, task.request.kind, said.own, reply.finish, self.endpoint.key)
            kept = checked.text if checked.fault is None else None
            self.cache.add(key, kept, reply.prompt_tokens, reply.completion_tokens)
            if kept is not None:
                return checked
        return checked

    async def _reply(self, messages: list[dict[str, Any]], seed: int) -> Reply | GaveUp:
        async def body() -> dict[str, Any]:
            return self.settings.body(self.endpoint.model, messages, seed)

        return await self.client.ask(body)

    def _messages(self, said: Chat) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        for number, picture in enumerate(said.pictures, 1):
            url = data_url(picture, self.settings.max_side)
            content.append({"type": "text", "text": caption(number, len(said.pictures))})
            content.append({"type": "image_url", "image_url": {"url": url}})
        content.append({"type": "text", "text": said.text})
        return [{"role": "system", "content": said.system}, {"role": "user", "content": content}]


def write_with_server(
    datasets: Sequence[RawDataset],
    text_datasets: Sequence[RawDataset],
    knowledge: KnowledgeTable,
    endpoint: Endpoint,
    asking: ClientSettings,
    out: Path,
    seed: int,
    settings: PlanSettings,
) -> Written:
    """Write a texts folder with a model behind an endpoint; see :func:`write_with_describer`.

    Raises:
        BadInput: the server takes no request of ours, or an image or the folder cannot be used. What was
            written until then lies in the cache.
    """
    digests = Digests()
    plan = make_plan(datasets, text_datasets, knowledge, seed, settings, unfit)
    with TextCache(out) as cache:
        writer = ServerWriter(endpoint, asking, cache, digests, seed)
        written = carry_out(plan, writer)
        spent = cache.spent(writer.keys)
    record = {
        "endpoint": endpoint.shown,
        "model": endpoint.model,
        "sampling": {
            "temperature": asking.temperature,
            "max_tokens": asking.max_tokens,
            "max_side": asking.max_side,
        },
        **base_record(seed, settings),
        "tokens": asdict(spent),
    }
    save(out, written, knowledge, text_datasets, digests, record)
    return written
