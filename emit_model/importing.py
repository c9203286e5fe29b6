"""From a released EMIT checkpoint to a folder that this package loads, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, GotOcr2ImageProcessorPil, Qwen2Tokenizer
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from emit_model.configuration import EmitConfig
from emit_model.conversion import (
    EMBEDDINGS,
    TokenIds,
    check_chat,
    check_shapes,
    convert_config,
    convert_state,
)
from emit_model.modeling import EmitForConditionalGeneration
from emit_model.processing import InternVLProcessor, add_comp_token
from emit_model.released import INDEX, Adapted, Shards, Source, read_json

SHARD_BYTES = 2 * 10**9  #: of a weight file, and so of what is held in memory at once
#: InternVL3's chat. Line breaks around images are the prompt's own, so none are added here.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Imported:
    """A checkpoint folder that was written."""

    folder: Path
    config: EmitConfig
    values: int  #: in all its tensors


def import_released(
    source: str | Path,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    preset: str = "release",
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Write a released checkpoint as a folder that this package, and the ``emit`` model, load.

    The folder appears whole or not at all. Tensors are read, merged and written one weight file at a time,
    each in the dtype that it is stored in.

    Args:
        source: folder of the checkpoint: ``config.json``, safetensors, tokenizer.
        out: folder to write; it may exist if it is empty.
        adapter: folder of a LoRA adapter that is merged into it; its tokenizer, if it has one, goes first.
        preset: a key of :data:`emit_model.PRESETS`: how query and reference are compared.
        progress: told after every weight file how many are written, and of how many.

    Raises:
        ValueError: the checkpoint cannot be imported; one sentence says why.
    """
    source, out = Path(source), Path(out).absolute()
    extra = None if adapter is None else Path(adapter)
    _refuse_used(out)
    chat = read_json(source / "config.json")
    check_chat(chat)
    base = Shards.of_checkpoint(source)
    tensors: Source = base if extra is None else Adapted(base, extra)
    tokenizer = read_tokenizer(extra if extra is not None and has_tokenizer(extra) else source)
    tokens = _token_ids(tokenizer)
    shapes = {name: tuple(meta.shape) for name, meta in tensors.meta.items()}
    config = convert_config(chat, shapes, tokens, preset=preset)
    check_shapes(shapes, config)
    _check_rows(tokenizer, shapes[EMBEDDINGS][0], tokens)
    config.dtype = tensors.meta[EMBEDDINGS].dtype
    config.architectures = [EmitForConditionalGeneration.__name__]
    with _whole_folder(out) as work:
        _write_weights(tensors, work, progress)
        config.save_pretrained(work)
        ends = GenerationConfig(eos_token_id=tokens.end, pad_token_id=tokenizer.pad_token_id)
        ends.save_pretrained(work)
        _processor(chat, config, tokenizer).save_pretrained(work)
        for path in work.glob("*.safetensors"):  # safetensors lets only their owner read them
            path.chmod((work / "config.json").stat().st_mode)
    return Imported(out, config, sum(meta.numel() for meta in tensors.meta.values()))


def _refuse_used(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out}: it exists and is no empty folder; name a new one")


def _token_ids(tokenizer: Any) -> TokenIds:
    """Ids by the tokenizer; it learns ``<COMP_CONTEXT>`` here where it was saved before EMIT's training."""
    image, end = tokenizer.convert_tokens_to_ids(["<IMG_CONTEXT>", "<|im_end|>"])
    return TokenIds(image, add_comp_token(tokenizer), end)


def _check_rows(tokenizer: Any, rows: int, tokens: TokenIds) -> None:
    highest = max(token for token in tokenizer.get_vocab().values() if token != tokens.comp)
    if highest >= rows:
        raise ValueError(
            f"the tokenizer has ids up to {highest}, but {EMBEDDINGS} has {rows} rows; pass the tokenizer "
            "that was saved with the checkpoint"
        )


def _processor(chat: Mapping[str, Any], config: EmitConfig, tokenizer: Any) -> InternVLProcessor:
    """InternVL3's pictures: tiles with a thumbnail, normalised as ImageNet's."""
    vision: Any = config.vision_config
    height, width = vision.image_size
    images = GotOcr2ImageProcessorPil(
        size={"height": height, "width": width},
        image_mean=list(IMAGENET_DEFAULT_MEAN),
        image_std=list(IMAGENET_DEFAULT_STD),
        crop_to_patches=bool(chat.get("dynamic_image_size", True)),
        min_patches=chat.get("min_dynamic_patch", 1),
        max_patches=chat.get("max_dynamic_patch", 12),
    )
    return InternVLProcessor(
        images, tokenizer, image_seq_length=config.image_seq_length, chat_template=CHAT_TEMPLATE
    )


def _write_weights(tensors: Source, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    """Safetensors files of at most :data:`SHARD_BYTES`, with an index where there are several."""
    groups = _groups(tensors.meta)
    places: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        several = f"-{number:05}-of-{len(groups):05}" if len(groups) > 1 else ""
        file = f"model{several}.safetensors"
        part = convert_state({name: tensors.read(name) for name in names})
        try:
            save_file(part, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise ValueError(
                f"{folder.parent}: {file} cannot be written ({error}); check the free space"
            ) from error
        places.update(dict.fromkeys(part, file))
        if progress is not None:
            progress(number, len(groups))
    if len(groups) > 1:
        size = sum(meta.nbytes for meta in tensors.meta.values())
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _groups(meta: Mapping[str, Tensor]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    size = 0
    for name, tensor in meta.items():
        if groups[-1] and size + tensor.nbytes > SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += tensor.nbytes
    return groups


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` to write into, which becomes ``out`` when it is whole."""
    work = out.with_name(f".{out.name}.partial")
    shutil.rmtree(work, ignore_errors=True)  # what an import that was killed has left
    work.mkdir(parents=True)
    try:
        yield work
        if out.is_dir():
            out.rmdir()
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a Qwen2 tokenizer, in its fast or its slow form."""
    slow = all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))
    return slow or (folder / "tokenizer.json").is_file()


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a released checkpoint, with the names by which InternVL's processor asks for tokens.

    Raises:
        ValueError: there is none, or it lacks a token that prompts are made of.
    """
    if not has_tokenizer(folder):
        raise ValueError(
            f"{folder}: there is no tokenizer (tokenizer.json, or vocab.json and merges.txt); download it"
        )
    try:
        # By its class, not by an Auto class: the checkpoint's own code is never a candidate.
        tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing narrower
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{folder}: its tokenizer cannot be read ({reason}); download it again") from error
    vocabulary = tokenizer.get_vocab()
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        # Never filled. A token of its own would need a row of the embedding matrix.
        "video_token": "<|video_pad|>" if "<|video_pad|>" in vocabulary else "<IMG_CONTEXT>",
    }
    for token in (*names.values(), "<|im_start|>", "<|im_end|>"):
        if token not in vocabulary:
            raise ValueError(f"{folder}: its tokenizer lacks {token}; pass the one saved with the checkpoint")
    tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True, extra_special_tokens=names)
    tokenizer.padding_side = "left"
    return tokenizer
