"""MMAD questions in the way of the published scripts, for comparison: each question by itself.

Written from their description: every question opens, resizes and encodes both of its images again; prompts
are made whole, four at a time, padded on the left, and answered by ``generate``. Nothing is kept between
questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.records import Decoding, Picture, PlannedGroup
from plugins.engine.model import end_ids
from plugins.engine.prompts import PromptBuilder

BATCH = 4


class OfficialWay:
    """Answers questions as the published scripts do.

    Args:
        model: a Hugging Face model.
        processor: its processor.
        images: arguments of the image processor.
    """

    def __init__(self, model: Any, processor: Any, images: dict[str, Any]) -> None:
        self.model, self.processor, self.images = model.eval(), processor, images
        self.prompts = PromptBuilder(processor)
        self.ends = sorted(end_ids(model, processor))
        processor.tokenizer.padding_side = "left"
        self.counts = {"images_encoded": 0, "prompt_tokens": 0, "padded_tokens": 0}

    @torch.inference_mode()
    def letters(self, groups: Sequence[PlannedGroup], decoding: Decoding) -> list[str]:
        """A text for each question; in ``logits`` mode the option with the highest score as first token."""
        questions = [(group, number) for group in groups for number in range(len(group.prompts))]
        said: list[str] = []
        for start in range(0, len(questions), BATCH):
            said += self._batch(questions[start : start + BATCH], decoding)
        return said

    def _batch(self, questions: Sequence[tuple[PlannedGroup, int]], decoding: Decoding) -> list[str]:
        texts, images, options = [], [], []
        for planned, number in questions:
            group = planned.load()  # opened anew for every question
            prompt = group.prompts[number]
            texts.append(self.prompts.text(group, prompt.text))
            images.append([part.pixels for part in group.content if isinstance(part, Picture)])
            options.append(prompt.options)
        inputs = self.processor(
            text=texts,
            images=images,
            return_tensors="pt",
            padding=True,
            text_kwargs={"add_special_tokens": False},
            images_kwargs=self.images,
        )
        self.counts["images_encoded"] += sum(map(len, images))
        self.counts["prompt_tokens"] += int(inputs["attention_mask"].sum())
        self.counts["padded_tokens"] += inputs["input_ids"].numel()
        if decoding.mode == "logits":
            scores = self.model(**inputs, logits_to_keep=1).logits[:, -1]
            return [self._best(row, letters) for row, letters in zip(scores, options, strict=True)]
        made = self.model.generate(
            **inputs,
            max_new_tokens=decoding.max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=self.ends,
        )
        answers = made[:, inputs["input_ids"].shape[1] :].tolist()
        return [self.prompts.decode([one for one in row if one not in self.ends]) for row in answers]

    def _best(self, scores: torch.Tensor, options: Any) -> str:
        ids = {letter: self.prompts.letter_id(letter) for letter in options}
        return max(ids, key=lambda letter: float(scores[ids[letter]]))
