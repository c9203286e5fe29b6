"""The model that the runner talks to: groups become requests, and the engine works on all of them at once.

There is no barrier: while some groups of a unit are decoded, the prompts of the next are prefilled. All
prompts of a group are sent together; what they share is in the engine's cache when the second is looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

from harness.errors import BadInput
from harness.records import (
    UNITS_AHEAD,
    Decoding,
    GroupResult,
    Model,
    Picture,
    Prompt,
    PromptGroup,
    Response,
    Unit,
    reason_of,
)
from plugins.checkpoint import Chat
from plugins.vllm_backend.inputs import Inputs
from plugins.vllm_backend.starting import cause_of, failures, stop


@dataclass
class _Open:
    """A group whose answers are on their way."""

    group: PromptGroup
    unit: int
    lengths: dict[int, int] = field(
        default_factory=dict
    )  #: prompt -> tokens of it, where the engine tells none
    responses: dict[int, Response] = field(default_factory=dict)
    heat_map: bytes | None = None

    def result(self) -> GroupResult:
        """All its responses, in order."""
        responses = tuple(self.responses[i] for i in range(len(self.responses)))
        return GroupResult(self.group.id, responses, heat_map=self.heat_map)


class VllmModel(Model):
    """A model in vLLM's engine.

    Args:
        engine: a ``vllm.LLM``.
        inputs: writes the prompts.
        ends: ids that end an answer.
        chat: what is particular about the family's chat.
        work: a folder that the engine reads from; removed at the end.
    """

    def __init__(
        self,
        engine: Any,
        inputs: Inputs,
        ends: frozenset[int],
        chat: Chat,
        work: TemporaryDirectory[str] | None = None,
    ) -> None:
        self.engine = engine
        self.inputs = inputs
        self.prompts = inputs.prompts
        self.ends = ends
        self.chat = chat
        self._work = work
        self._number = 0  # of the next request
        self._requests: dict[str, tuple[_Open, int]] = {}
        self._counts = dict.fromkeys(("prompt_tokens", "cached_tokens", "decoded_tokens", "images_sent"), 0)

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        """One response a prompt, in order; see :class:`harness.records.Model`."""
        ((result,),) = self.stream([[group]], decoding)
        if result.reason:
            raise BadInput(result.reason)
        return result.responses

    def stream(self, units: Iterable[Unit], decoding: Decoding) -> Iterator[Sequence[GroupResult]]:
        """Each group by itself, as soon as its last answer is there.

        Raises:
            BadInput: the engine has failed; nothing can be asked of it any more.
        """
        source = iter(units)
        more, taken = True, 0
        try:
            while more or self._requests:
                # One at a time, and a step between: the engine begins before the next images are there.
                if more and len({one.unit for one, _ in self._requests.values()}) < UNITS_AHEAD:
                    unit = next(source, None)
                    more = unit is not None
                    taken += 1
                    for group in unit or ():
                        yield from self._send(_Open(group, taken), decoding)
                if self._requests:
                    yield from self._step(decoding)
        finally:
            self._abort(list(self._requests))

    def counters(self) -> Mapping[str, int]:
        """Exact work: tokens of prompts, how many of them the cache had, tokens decoded, images sent."""
        return {**self._counts, **self.inputs.counters()}

    def close(self) -> None:
        """Shut the engine down and give its memory back."""
        self.inputs.close()
        stop(self.engine)
        self.engine = None
        if self._work is not None:
            self._work.cleanup()

    def _send(self, one: _Open, decoding: Decoding) -> Iterator[list[GroupResult]]:
        """Ask a group's prompts; where one cannot be asked, none is, and the group's result says why."""
        sent: list[str] = []
        try:
            opening = self.chat.opening.get(decoding.mode, "")
            written = self.inputs.write(one.group, opening)
            one.heat_map = written[0].heat_map if written else None
            for index, (prompt, asked) in enumerate(zip(one.group.prompts, written, strict=True)):
                one.lengths[index] = asked.length
                key = str(self._number)
                self._number += 1
                engine = self.engine.llm_engine
                engine.add_request(key, asked.render(engine), self._params(prompt, decoding))
                sent.append(key)
                self._requests[key] = (one, index)
        except failures() as error:
            self._abort(sent)
            yield [GroupResult(one.group.id, reason=reason_of(error))]
        else:
            self._counts["images_sent"] += sum(isinstance(part, Picture) for part in one.group.content)

    def _step(self, decoding: Decoding) -> Iterator[list[GroupResult]]:
        """Let the engine work once; results of the groups that are complete by that."""
        try:
            outputs = self.engine.llm_engine.step()
        except failures() as error:
            with suppress(*failures()):  # it may be past listening
                self._abort(list(self._requests))
            raise BadInput(
                f"vllm has failed ({type(error).__name__}: {cause_of(error)}); what is answered is kept: run "
                "again to go on, if memory was the cause with --backend-arg gpu_memory_utilization=0.8"
            ) from error
        for output in outputs:
            if not output.finished or output.request_id not in self._requests:
                continue
            one, index = self._requests.pop(output.request_id)
            try:
                one.responses[index] = self._response(one, index, output, decoding)
            except BadInput as error:
                self._abort([key for key, (other, _) in self._requests.items() if other is one])
                yield [GroupResult(one.group.id, reason=reason_of(error))]
                continue
            if len(one.responses) == len(one.group.prompts):
                yield [one.result()]

    def _abort(self, keys: list[str]) -> None:
        for key in keys:
            self._requests.pop(key, None)
        if keys and self.engine is not None:
            self.engine.llm_engine.abort_request(keys)

    def _params(self, prompt: Prompt, decoding: Decoding) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        letters = self._letters(prompt, decoding)
        if decoding.mode == "logits" and not letters:
            raise BadInput(
                f"mode logits needs every option letter as one token, and this tokenizer splits one of "
                f"{', '.join(prompt.options)}; use --mode direct"
            )
        room = max(decoding.max_new_tokens, self.chat.room.get(decoding.mode, 0))
        name = hashlib.sha256(f"{decoding.seed}\0{prompt.id}".encode()).digest()
        seed = int.from_bytes(name[:8], "big") >> 1  # signed, 64 bits
        return SamplingParams(
            temperature=decoding.temperature,
            max_tokens=1 if decoding.mode == "logits" else room,
            seed=seed if decoding.temperature > 0 else None,
            ignore_eos=True,  # these end an answer, and no other
            stop_token_ids=sorted(self.ends),
            logprob_token_ids=sorted(letters.values()) or None,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _letters(self, prompt: Prompt, decoding: Decoding) -> dict[str, int]:
        """Option letter -> its token; empty where they are not to be told or are no tokens of their own."""
        ids = {letter: self.prompts.letter_id(letter) for letter in prompt.options}
        known = {letter: token for letter, token in ids.items() if token is not None}
        return known if decoding.mode != "think" and len(set(known.values())) == len(ids) else {}

    def _response(self, one: _Open, index: int, output: Any, decoding: Decoding) -> Response:
        (made,) = output.outputs
        if made.finish_reason not in ("stop", "length"):
            raise BadInput(f"vllm ended an answer by {made.finish_reason!r}")
        prompt, ids = one.group.prompts[index], tuple(made.token_ids)
        length = one.lengths[index] or len(output.prompt_token_ids)
        self._counts["prompt_tokens"] += length
        self._counts["cached_tokens"] += output.num_cached_tokens or 0
        letters = self._letters(prompt, decoding)
        scores = {letter: made.logprobs[0][token].logprob for letter, token in letters.items()} or None
        if decoding.mode == "logits":
            assert scores is not None  # it would not have been asked
            return Response(max(scores, key=lambda letter: scores[letter]), length, 0, scores)
        self._counts["decoded_tokens"] += len(ids)
        ended = bool(ids) and ids[-1] in self.ends
        text = self.prompts.decode(ids[:-1] if ended else ids)
        return Response(text, length, len(ids), scores, truncated=not ended)
