"""A tiny training: random images with questions, a random EMIT, its policy and prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from emit_model import Contrast
from harness.protocol import shipped_protocols
from tests import tiny
from trainers.adapters import attach
from trainers.policy import Policy
from trainers.prompts import PromptMaker, TrainingPrompt
from trainers.samples import Sample, TrainingSet, read_training_set
from trainers.settings import ModelSettings

YES_NO = {"A": "Yes.", "B": "No."}
PLACES = {"A": "Top.", "B": "Left.", "C": "Center.", "D": "Right."}
#: Shorter than the shipped prompts, which a tokenizer of four hundred tokens spells out.
PROTOCOL = replace(
    shipped_protocols()[0],
    name="short",
    system="inspect",
    content="{% for image in references %}{{ image }}{% endfor %}{{ query }}{{ knowledge | join(' ') }}\n"
    "{{ instruction }}",
    question="\n{{ question }}{% for letter, text in options %} {{ letter }}. {{ text }}{% endfor %}",
    instructions={"direct": "Letter.", "logits": "Letter.", "think": "Think."},
)


def row(name: str, task: str, number: int, **changes: Any) -> dict[str, Any]:
    """One line of a training file on image pair ``number``."""
    places = task == "defect_localization"
    return {
        "id": name,
        "dataset": "Parts",
        "object": "part",
        "task": task,
        "references": [f"reference_{number}.png"],
        "query": f"query_{number}.png",
        "question": "Where is the defect?" if places else "Is there any defect?",
        "options": PLACES if places else YES_NO,
        "answer": "ABCD"[number % 4] if places else "AB"[number % 2],
        "knowledge": ["It is flat."],
        "rationale": "I see: a scratch.",
        **changes,
    }


def rows(pairs: int) -> list[dict[str, Any]]:
    """Two contrastive questions on every pair, and a text-only sample at the end."""
    found = []
    for number in range(pairs):
        found.append(row(f"ad{number}", "anomaly_discrimination", number))
        found.append(row(f"dl{number}", "defect_localization", number))
        found.append(row(f"dc{number}", "defect_classification", number, question="Which?"))
    found.append(row("text", "anomaly_discrimination", 0, query=None, description="There is a scratch."))
    return found


def training_set(folder: Path, pairs: int = 2, lines: Sequence[dict[str, Any]] | None = None) -> TrainingSet:
    """Write images and rows into a folder and read them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pairs):
        tiny.image(2 * number).save(folder / f"reference_{number}.png")
        tiny.image(2 * number + 1).save(folder / f"query_{number}.png")
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (rows(pairs) if lines is None else lines)))
    return read_training_set(path)


def policy(
    *,
    adapters: bool = True,
    dtype: torch.dtype = torch.float64,
    contrast: Contrast | None = None,
    seed: int = 0,
    awake: bool = False,
    **settings: Any,
) -> tuple[Policy, PromptMaker]:
    """A random EMIT that learns: adapters, or the contrast head alone.

    With ``awake`` the adapters' B matrices are random and not zero, so that they do something.
    """
    model, parts = tiny.emit(seed, contrast)
    model = model.to(dtype)
    model.requires_grad_(False)
    wrapped = None
    if adapters:
        wrapped = attach(model, ModelSettings(quantise="none", tiles=1, **settings), seed)
        model.to(dtype)
        if awake:
            wake(model)
    else:
        model.contrast.requires_grad_(True)
    found = Policy(model, parts, wrapped)
    return found, PromptMaker(parts, PROTOCOL, model.config.placeholders, 1)


def wake(model: Any, scale: float = 0.05) -> None:
    """Give the adapters' B matrices random values."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(scale * drawn)


def prompt(maker: PromptMaker, samples: Sequence[Sample], mode: Any = "think") -> TrainingPrompt:
    """Their prompt, opened here."""
    return maker.make(maker.open(samples, mode))
