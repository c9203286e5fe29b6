"""What an answer depends on, as one digest.

The key of an answer covers the rendered prompt, the bytes of its images in their places, the model's
fingerprint and the decoding. So an answer is found again exactly when asking once more would give the same: a
repaired image, or weights that were saved again at the same path, are asked anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.records import Decoding, LoadRequest, PlannedGroup, Prompt


def digest_of(content: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hex."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def model_digest(model: str, fingerprint: Mapping[str, Any], request: LoadRequest) -> str:
    """Everything about a model that decides its answers.

    The device is left out: the same weights at the same precision are one model wherever they run. Whether a
    group's prefix is shared is in, although it changes rounding only: who compares the two must get both.
    """
    settings = [request.backend, request.dtype, request.share_prefix, dict(request.options)]
    settings += [request.quantize] if request.quantize else []
    return digest_of(["model", model, dict(fingerprint), settings])


def group_key(group: PlannedGroup, digest: Callable[[Path], str], model: str, decoding: Decoding) -> str:
    """The key of a group's shared part, of which each question's key is made.

    Args:
        group: the planned group.
        digest: an image file's path -> SHA-256 of its bytes.
        model: :func:`model_digest` of the model that is asked.
        decoding: how answers are decoded.
    """
    content = [part if isinstance(part, str) else ["image", digest(part.path)] for part in group.content]
    raw = ["raw"] if group.raw else []
    # A query that is not shown decides nothing; it keeps questions apart whose texts are the same.
    hidden = [] if group.shows_query else [["hidden", digest(group.query.path)]]
    return digest_of(["group", model, asdict(decoding), group.system, content, *raw, *hidden])


def answer_key(group: str, prompt: Prompt) -> str:
    """The key of one question's answer, from its group's key."""
    return digest_of(["answer", group, prompt.text, list(prompt.options), prompt.contrastive])
