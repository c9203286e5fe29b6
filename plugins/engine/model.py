"""The model that the runner talks to: image features, shared prefixes, answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.console import say
from harness.errors import BadInput
from harness.prefetch import prefetch_within
from harness.records import (
    KNOWN_FAILURES,
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
from plugins.engine.decode import Decoder, Generated, Prefix, Suffix
from plugins.engine.images import EncodedImage, FeatureCache, PreparedImage
from plugins.engine.memory import free, out_of_memory
from plugins.engine.prompts import PromptBuilder, Tokens
from plugins.engine.verify import Verifier
from plugins.engine.wiring import Hints
from plugins.engine.wirings import wire

#: Questions that are decoded side by side; a unit with more is decoded in several batches.
MAX_ROWS = 64


#: Prompt -> what became of it, or why there is nothing.
_Answers = dict[tuple[int, int], Generated | str]


@dataclass(frozen=True)
class _Planned:
    """A group on its way: its token ids, and what its images became."""

    group: PromptGroup
    tokens: Tokens
    images: tuple[EncodedImage, ...]  #: in the order shown
    hints: Hints | None

    @property
    def vectors(self) -> Tensor | None:
        """What goes into the placeholders."""
        return self.hints.vectors if self.hints else None

    @property
    def width(self) -> int:
        """Tokens of all questions behind what they share."""
        return sum(len(row) - self.tokens.shared for row in self.tokens.rows)


@dataclass(frozen=True)
class _Row:
    """One prompt of a planned group, and where its own part begins."""

    planned: _Planned
    index: int
    shared: int

    @property
    def ids(self) -> tuple[int, ...]:
        return self.planned.tokens.rows[self.index]

    @property
    def key(self) -> tuple[int, int]:
        """Which prompt of which group; not its name, for names may be alike."""
        return id(self.planned), self.index


class SharedPrefixModel(Model):
    """A model that answers all questions of an image pair on one prefilled prefix.

    Args:
        model: a Hugging Face model of a class that :mod:`plugins.engine.wiring` knows, on its device.
        processor: its processor.
        images: arguments of the image processor.
        chat: what is particular about the family's chat.
        share_prefix: when False, every question runs alone; answers are the same, to rounding.
        verify: compare every shared prefix with none, not the first ones only.
        threads: that prepare images ahead of the model.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        images: Mapping[str, Any] | None = None,
        chat: Chat | None = None,
        share_prefix: bool = True,
        verify: bool = False,
        threads: int = 2,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.chat = chat or Chat()
        self.share_prefix = share_prefix
        self.threads = threads
        self.cache = FeatureCache()
        self.wiring = wire(model, processor, images or {}, self.cache)
        self.prompts = PromptBuilder(processor, self.wiring.late_token, self.chat.keep)
        self.decoder = Decoder(model, end_ids(model, processor))
        self.verifier = Verifier(model.dtype, every=verify) if share_prefix else None
        self._counts = dict.fromkeys(("prefix_tokens", "suffix_tokens", "decoded_tokens", "batches_split"), 0)

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        """One response a prompt, in order; see :class:`harness.records.Model`."""
        with torch.inference_mode():
            decoding = self._with_room(decoding)
            (result,) = self._answer({0: self._plan(group, decoding, {})}, decoding).values()
        if result.reason:
            raise BadInput(result.reason)
        return result.responses

    def stream(self, units: Iterable[Unit], decoding: Decoding) -> Iterator[Sequence[GroupResult]]:
        """A unit at a time; images of the next ones are prepared meanwhile."""
        for unit in prefetch_within(self._prepare, units, self.threads):
            yield self.answer_unit([group for group, _ in unit], decoding, [made for _, made in unit])

    @torch.inference_mode()
    def answer_unit(
        self,
        groups: Sequence[PromptGroup],
        decoding: Decoding,
        prepared: Sequence[Mapping[str, PreparedImage]] = (),
    ) -> list[GroupResult]:
        """Results of groups that are computed together, in order.

        Args:
            groups: of the unit.
            decoding: how answers are decoded.
            prepared: of each group, images that were prepared already, by key.
        """
        decoding = self._with_room(decoding)
        results: dict[int, GroupResult] = {}
        plans: dict[int, _Planned] = {}
        for number, group in enumerate(groups):
            try:
                plans[number] = self._plan(group, decoding, prepared[number] if prepared else {})
            except KNOWN_FAILURES as error:
                results[number] = GroupResult(group.id, reason=reason_of(error))
        results |= self._answer(plans, decoding)
        return [results[number] for number in range(len(groups))]

    def counters(self) -> Mapping[str, int]:
        """Exact work so far; tokens include images and placeholders, decoded ones the end token."""
        return {**self._counts, **self.wiring.counts, **(self.verifier.counts if self.verifier else {})}

    def close(self) -> None:
        """Forget image features and give the accelerator's memory back."""
        self.cache.clear()
        self.model = self.decoder = self.wiring = None  # type: ignore[assignment]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # From a group to token ids and features.

    def _prepare(self, group: PromptGroup) -> tuple[PromptGroup, dict[str, PreparedImage]]:
        """What of a group's images is not encoded yet, ready for the tower; in a thread of its own."""
        made: dict[str, PreparedImage] = {}
        pictures, beside = _pictures(group)
        for picture in pictures:
            key = self.wiring.key(picture, beside)
            if key not in self.cache and key not in made:
                try:
                    made[key] = self.wiring.prepare(picture, beside)
                except KNOWN_FAILURES:
                    break  # it is prepared again where its failure is the group's
        return group, made

    def _plan(
        self, group: PromptGroup, decoding: Decoding, prepared: Mapping[str, PreparedImage]
    ) -> _Planned:
        pictures, beside = _pictures(group)
        contrastive = any(prompt.contrastive for prompt in group.prompts)
        compared = (*group.references, group.query) if contrastive else ()
        needed = (*pictures, *compared)
        images = {picture.digest: self._encode(picture, beside, prepared) for picture in needed}
        texts = {digest: image.text for digest, image in images.items()}
        additions = [self.wiring.addition(prompt) for prompt in group.prompts]
        tokens = self.prompts.build(group, texts, additions, self.chat.opening.get(decoding.mode, ""))
        hints = self.wiring.hints(group, images)
        return _Planned(group, tokens, tuple(images[picture.digest] for picture in pictures), hints)

    def _encode(self, picture: Picture, beside: bool, prepared: Mapping[str, PreparedImage]) -> EncodedImage:
        """An image's features, from the cache if they are there."""
        key = self.wiring.key(picture, beside)

        def make() -> EncodedImage:
            return self.wiring.encode(prepared.get(key) or self.wiring.prepare(picture, beside))

        try:
            found: EncodedImage = self.cache.get(key, make, lambda image: image.tensors)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            self.cache.clear()  # it may hold what is lacking
            free(error)
            found = self.cache.get(key, make, lambda image: image.tensors)
        return found

    # From token ids to answers.

    def _answer(self, plans: Mapping[int, _Planned], decoding: Decoding) -> dict[int, GroupResult]:
        """Results by number; a batch that does not fit into memory is split."""
        answers: _Answers = {}
        for batch in _batches(plans.values()):
            self._generate([row for one in batch for row in self._rows(one)], decoding, answers)
        if self.verifier is not None and self.share_prefix:
            self._verify(plans, decoding, answers)
        return {number: self._result(planned, answers, decoding) for number, planned in plans.items()}

    def _rows(self, planned: _Planned, shared: bool = True) -> list[_Row]:
        length = planned.tokens.shared if shared and self.share_prefix else 0
        return [_Row(planned, index, length) for index in range(len(planned.tokens.rows))]

    def _generate(self, rows: Sequence[_Row], decoding: Decoding, answers: _Answers) -> None:
        """Answers of rows; a batch that fails is taken apart until only what is to blame has failed."""
        try:
            answers |= self._run(rows, decoding)
            return
        except KNOWN_FAILURES as error:
            full = out_of_memory(error)
            if isinstance(error, torch.AcceleratorError) and not full:
                raise  # the device is of no use any more
            reason = reason_of(error)
            free(error)
        owners = list(dict.fromkeys(id(row.planned) for row in rows))
        if full and len(rows) > 1:
            self._counts["batches_split"] += 1
            half = len(rows) // 2
            parts = [rows[:half], rows[half:]]
        elif not full and len(owners) > 1:  # one of the groups is to blame
            parts = [[row for row in rows if id(row.planned) == owner] for owner in owners]
        else:
            for row in rows:
                single = f"out of memory on a single prompt of {len(row.ids):,} tokens"
                answers[row.key] = single if full else reason
            return
        for part in parts:
            self._generate(part, decoding, answers)

    def _run(self, rows: Sequence[_Row], decoding: Decoding) -> dict[tuple[int, int], Generated]:
        """One batch: every prefix once, then all rows side by side."""
        families: dict[tuple[int, int], list[_Row]] = {}
        for row in rows:
            # Rows that share nothing have prefixes of their own: all but their last token.
            families.setdefault((id(row.planned), -1 if row.shared else row.index), []).append(row)
        prefixes: list[Prefix] = []
        suffixes: list[list[Suffix]] = []
        for members in families.values():
            shared = members[0].shared or len(members[0].ids) - 1
            prefixes.append(self._prefill(members[0], shared))
            own = [self._suffix(member, shared) for member in members]
            suffixes.append(own)
            self._counts["prefix_tokens" if members[0].shared else "suffix_tokens"] += shared
            self._counts["suffix_tokens"] += sum(len(suffix.embeds) for suffix in own)
        generated = self.decoder.decode(prefixes, suffixes, decoding)
        done = {}
        for members, results in zip(families.values(), generated, strict=True):
            for member, result in zip(members, results, strict=True):
                self._counts["decoded_tokens"] += result.tokens
                done[member.key] = result
        return done

    def _prefill(self, row: _Row, shared: int) -> Prefix:
        ids = torch.tensor([row.ids[:shared]], dtype=torch.long, device=self.model.device)
        images = row.planned.images
        features = torch.cat([image.features for image in images]) if images else None
        embeds = self.wiring.embed(ids, features, row.planned.vectors)
        rope, moved = self.wiring.positions(ids, images)
        return self.decoder.prefill(embeds, rope, moved, self.wiring.blocks(ids))

    def _suffix(self, row: _Row, shared: int) -> Suffix:
        ids = torch.tensor([row.ids[shared:]], dtype=torch.long, device=self.model.device)
        key = row.planned.group.prompts[row.index].id
        return Suffix(self.wiring.embed(ids, None, row.planned.vectors)[0], key)

    def _verify(
        self,
        plans: Mapping[int, _Planned],
        decoding: Decoding,
        answers: _Answers,
    ) -> None:
        """Compare shared prefixes with none; where they differ, sharing ends here, for this unit too."""
        assert self.verifier is not None
        for planned in plans.values():
            if not planned.tokens.shared or not self.verifier.wanted:
                continue
            rows = self._rows(planned, shared=False)
            before = dict(self._counts)
            alone: _Answers = {}
            self._generate(rows, replace(decoding, mode="logits"), alone)
            self._counts = before  # the check is counted by itself
            if not self.verifier.agrees(answers, alone):
                self.share_prefix = False
                say(
                    "shared prompt prefixes give other answers than whole prompts; sharing is off now, "
                    "in this worker (--no-share-prefix turns it off in all)"
                )
                answers.clear()
                for batch in _batches(plans.values()):
                    self._generate([row for one in batch for row in self._rows(one)], decoding, answers)
                return

    # From answers to responses.

    def _result(self, planned: _Planned, answers: _Answers, decoding: Decoding) -> GroupResult:
        responses = []
        for index, prompt in enumerate(planned.group.prompts):
            row, answer = planned.tokens.rows[index], answers[id(planned), index]
            if isinstance(answer, str):
                return GroupResult(planned.group.id, reason=answer)
            try:
                responses.append(self._response(prompt, len(row), answer, decoding))
            except BadInput as error:
                return GroupResult(planned.group.id, reason=reason_of(error))
        seen = planned.hints.picture() if planned.hints else None
        return GroupResult(planned.group.id, tuple(responses), heat_map=seen)

    def _response(self, prompt: Prompt, length: int, result: Generated, decoding: Decoding) -> Response:
        if not result.sound:
            return Response(
                "", length, result.tokens, reason="its scores are no numbers; try --dtype bfloat16"
            )
        scores = self._option_scores(prompt, result) if decoding.mode != "think" else None
        if decoding.mode == "logits":
            if scores is None:
                raise BadInput(
                    f"mode logits needs every option letter as one token, and this tokenizer splits one of "
                    f"{', '.join(prompt.options)}; use --mode direct"
                )
            best = max(scores, key=lambda letter: scores[letter])
            return Response(best, length, 0, scores)
        text = self.prompts.decode(result.ids)
        return Response(text, length, result.tokens, scores, truncated=not result.ended)

    def _option_scores(self, prompt: Prompt, result: Generated) -> dict[str, float] | None:
        ids = {letter: self.prompts.letter_id(letter) for letter in prompt.options}
        if None in ids.values() or len(set(ids.values())) < len(ids):
            return None
        return {letter: float(result.first[token]) for letter, token in ids.items()}

    def _with_room(self, decoding: Decoding) -> Decoding:
        """The token limit, raised for a model that thinks unasked."""
        room = max(decoding.max_new_tokens, self.chat.room.get(decoding.mode, 0))
        return replace(decoding, max_new_tokens=room)


def _batches(plans: Iterable[_Planned]) -> Iterator[list[_Planned]]:
    """Whole groups of like width, as many as :data:`MAX_ROWS` lets in.

    A group that is cut would be prefilled twice, and a narrow one is padded to the widest of its batch.
    """
    batch: list[_Planned] = []
    rows = 0
    for planned in sorted(plans, key=lambda one: one.width, reverse=True):
        count = len(planned.tokens.rows)
        if batch and (rows + count > MAX_ROWS or 2 * planned.width < batch[0].width):
            yield batch
            batch, rows = [], 0
        batch.append(planned)
        rows += count
    if batch:
        yield batch


def end_ids(model: Any, processor: Any) -> frozenset[int]:
    """Every id that ends an answer: all of the generation configuration, else the tokenizer's own."""
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = processor.tokenizer.eos_token_id
    if found is None:
        raise BadInput("the checkpoint names no end token; add eos_token_id to its generation_config.json")
    return frozenset([found] if isinstance(found, int) else found)


def _pictures(group: PromptGroup) -> tuple[list[Picture], bool]:
    """The pictures that a group's content shows, and whether they are several."""
    pictures = [part for part in group.content if isinstance(part, Picture)]
    return pictures, len(pictures) > 1
