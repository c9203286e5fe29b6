"""A model whose class is its repository's own: each question by itself, through ``generate``.

Nothing is known of its insides, so nothing is shared. It takes a processor and a model by transformers'
automatic classes, with remote code where the user allows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from harness.errors import BadInput
from harness.records import Decoding, LoadRequest, Model, Picture, Prompt, PromptGroup, Response
from plugins.checkpoint import Chat, Checkpoint
from plugins.engine import pick_device, pick_dtype
from plugins.engine.model import end_ids
from plugins.engine.prompts import PromptBuilder


class PlainModel(Model):
    """Answers each question alone.

    Args:
        model: with ``generate``, on its device.
        processor: with a chat template; takes ``text`` and ``images``.
        images: arguments of the image processor.
        chat: what is particular about the family's chat.
        nested: whether the processor takes a list of images for each text, as those of transformers do; else
            it takes one flat list.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        images: Mapping[str, Any] | None = None,
        chat: Chat | None = None,
        *,
        nested: bool = True,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.images = dict(images or {})
        self.chat = chat or Chat()
        self.nested = nested
        self.ends = end_ids(model, processor)
        self.prompts = PromptBuilder(processor, keep=self.chat.keep)
        self._counts = {"images_encoded": 0, "prefix_tokens": 0, "suffix_tokens": 0, "decoded_tokens": 0}

    def answer(self, group: PromptGroup, decoding: Decoding) -> list[Response]:
        """One response a prompt, in order; see :class:`harness.records.Model`.

        Raises:
            BadInput: sampling was asked for, whose draws could not be repeated here.
        """
        if decoding.temperature > 0:
            raise BadInput("this model answers greedily only; set the temperature to 0")
        self.prompts.refuse_control_tokens(group)
        return [self._ask(group, prompt, decoding) for prompt in group.prompts]

    def counters(self) -> Mapping[str, int]:
        """Exact work so far; nothing is shared, so every token of a prompt is a suffix's."""
        return dict(self._counts)

    def close(self) -> None:
        """Give the accelerator's memory back."""
        self.model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _ask(self, group: PromptGroup, prompt: Prompt, decoding: Decoding) -> Response:
        opening = self.chat.opening.get(decoding.mode, "")
        pictures = [part.pixels for part in group.content if isinstance(part, Picture)]
        inputs = self.processor(
            text=[self.prompts.text(group, prompt.text, opening=opening)],
            images=([pictures] if self.nested else pictures) if pictures else None,
            return_tensors="pt",
            text_kwargs={"add_special_tokens": False},
            images_kwargs=self.images,
        ).to(self.model.device, self.model.dtype)
        length = inputs["input_ids"].shape[1]
        room = max(decoding.max_new_tokens, self.chat.room.get(decoding.mode, 0))
        made = self.model.generate(
            **inputs,
            max_new_tokens=1 if decoding.mode == "logits" else room,
            do_sample=False,
            num_beams=1,
            return_dict_in_generate=True,
            output_logits=True,
            eos_token_id=sorted(self.ends),
        )
        ids = made.sequences[0, length:].tolist()
        self._counts["images_encoded"] += len(pictures)
        self._counts["suffix_tokens"] += length
        first = made.logits[0][0].float().log_softmax(dim=-1)
        letters = {letter: self.prompts.letter_id(letter) for letter in prompt.options}
        known = {letter: token for letter, token in letters.items() if token is not None}
        scores = {letter: float(first[token]) for letter, token in known.items()}
        if decoding.mode == "logits":
            if len(set(known.values())) < len(letters):
                raise BadInput(
                    "mode logits needs every option letter as one token of its own; use --mode direct"
                )
            return Response(max(scores, key=lambda letter: scores[letter]), length, 0, scores)
        self._counts["decoded_tokens"] += len(ids)
        ended = bool(ids) and ids[-1] in self.ends
        text = self.prompts.decode(ids[:-1] if ended else ids)
        told = scores if decoding.mode == "direct" and len(scores) == len(letters) else None
        return Response(text, length, len(ids), told, truncated=not ended)


def load_plain(checkpoint: Checkpoint, request: LoadRequest) -> PlainModel:
    """A model of its repository's own class.

    Raises:
        BadInput: remote code is not allowed, or the checkpoint cannot be loaded.
    """
    if not request.trust_remote_code:
        raise BadInput(
            f"model {checkpoint.id!r} has no class in transformers: pass --backend vllm, --backend server, "
            "or --trust-remote-code to run its repository's own code"
        )
    for option, given in (
        ("--adapter", request.adapter),
        ("--quantize", request.quantize),
        ("--device-map", request.resources.get("device_map")),
    ):
        if given is not None:
            raise BadInput(
                f"{option}: model {checkpoint.id!r} runs by its own code, which takes none; leave it out"
            )
    import transformers

    weights = checkpoint.resolve(request)
    device = pick_device(request.device, request.worker)
    options = {"trust_remote_code": True, "local_files_only": True}
    try:
        processor = transformers.AutoProcessor.from_pretrained(weights.folder, **options)
        kind = (
            transformers.AutoModelForImageTextToText
            if type(weights.config.get("auto_map")) is not dict
            else transformers.AutoModelForCausalLM
        )
        loaded: Any = kind.from_pretrained(
            weights.folder,
            dtype=pick_dtype(request.dtype, device),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        model, report = loaded
        if report["missing_keys"]:  # they would start random
            raise ValueError(f"it lacks parameters such as {min(report['missing_keys'])}")
        model.to(device)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"weights of {checkpoint.id}: {weights.origin} cannot be loaded with its own code ({reason}); "
            "pass --backend vllm or --backend server"
        ) from error
    images = checkpoint.images.get(request.world)
    return PlainModel(model, processor, images, checkpoint.chat, nested=False)
