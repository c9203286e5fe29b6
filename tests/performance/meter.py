"""What is measured in a step: exact counters of work, and processor time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Record:
    """One step."""

    seconds: float  #: of the process on CPUs; wall-clock time where the model is on a GPU
    counts: Mapping[str, int]


class Meter:
    """Measures steps, and lets them wait for a word from outside.

    Counts, in tiles and token positions that pass a module:

    - ``images_opened``, ``processor_calls``: what the image processor cuts, and how often it is asked;
    - ``tiles_encoded``: by the vision tower;
    - ``sampling_tokens``: by the language model with a key-value cache, that is, while responses are drawn;
    - ``reference_tokens``, ``policy_tokens``: by it without a cache, without and with gradients.

    Args:
        model: an ``InternVLForConditionalGeneration``, whatever is wrapped around it.
        processor: its processor.
        link: a step begins when something comes, and its record is sent; None: never waits.
    """

    def __init__(self, model: Any, processor: Any, link: Connection | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.records: list[Record] = []
        self._device, self._link, self._start = model.device, link, 0.0
        model.model.vision_tower.register_forward_pre_hook(self._see, with_kwargs=True)
        model.model.language_model.register_forward_pre_hook(self._read, with_kwargs=True)
        cut = processor.image_processor._preprocess

        def counted(images: Any, *args: Any, **kwargs: Any) -> Any:
            self.counts["processor_calls"] += 1
            self.counts["images_opened"] += len(images)
            return cut(images, *args, **kwargs)

        processor.image_processor._preprocess = counted

    def begin(self) -> None:
        """A step begins."""
        if self._link is not None:
            self._link.recv()
        self.counts.clear()
        self._start = self._clock()

    def end(self) -> None:
        """A step has ended."""
        record = Record(self._clock() - self._start, dict(self.counts))
        self.records.append(record)
        if self._link is not None:
            self._link.send(record)

    def _clock(self) -> float:
        if self._device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _see(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        pixels = kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]
        self.counts["tiles_encoded"] += len(pixels)

    def _read(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        rows, length = kwargs["inputs_embeds"].shape[:2]
        if kwargs.get("past_key_values") is not None:
            kind = "sampling_tokens"
        else:
            kind = "policy_tokens" if torch.is_grad_enabled() else "reference_tokens"
        self.counts[kind] += rows * length
