"""Processor of InternVL and EMIT checkpoints: images only, so that torchvision is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

#: Placeholder that the soft prompt and the contrastive embeddings overwrite, one token a vector.
COMP_TOKEN = "<COMP_CONTEXT>"
#: What the soft prompt is initialised from (quoted from the paper, "Soft Prompt").
HINT = "Below are some hints for your reference:"


class InternVLProcessor(transformers.InternVLProcessor):
    """InternVL's processor without its video slot, which cannot be filled without torchvision.

    It carries its parent's name, because that name is what a saved checkpoint records: a folder saved from
    here loads in plain transformers, and the other way round.
    """

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that are saved and loaded: image processor and tokenizer."""
        names = super().get_attributes()  # type: ignore[no-untyped-call]
        return [name for name in names if name != "video_processor"]


def load_processor(folder: str | Path, **kwargs: Any) -> InternVLProcessor:
    """The processor of a checkpoint folder (or hub id)."""
    # Never a repository's own code; unless told so, transformers would ask on the terminal.
    return InternVLProcessor.from_pretrained(folder, **{"trust_remote_code": False, **kwargs})


def add_comp_token(tokenizer: Any) -> int:
    """Make ``<COMP_CONTEXT>`` one special token of ``tokenizer``, if it is not yet, and return its id."""
    if COMP_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([transformers.AddedToken(COMP_TOKEN, special=True)], special_tokens=True)
    return int(tokenizer.convert_tokens_to_ids(COMP_TOKEN))
