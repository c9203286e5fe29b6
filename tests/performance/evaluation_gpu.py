"""Questions a second at 7B and 8B, shared against unshared, with random weights: for a machine with a GPU.

``python -m tests.performance.evaluation_gpu --model internvl3-8b`` builds the model from its shapes alone, so
no weights are needed; two images of five tiles (or as many tokens), knowledge text, five questions a pair,
``direct`` mode. It prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
import transformers
from transformers.initialization import no_init_weights

from harness.records import Decoding, Picture, Prompt, PromptGroup
from plugins.checkpoint import pixels, tiled
from plugins.engine.model import SharedPrefixModel
from tests import families, tiny

#: Published shapes; what is not named is the class's default.
TEXT = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
QUESTION = "\nQuestion: Is there any defect in the object? A. Yes. B. No. C. Both. D. None. Number {}."


def internvl3(tiny_parts: Any) -> Any:
    """InternVL3-8B's shapes: InternViT-300M at 448 px, Qwen2.5-7B; 256 tokens a tile."""
    small, processor = tiny_parts
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    config = transformers.InternVLConfig(
        vision_config={**vision, "image_size": [448, 448], "patch_size": [14, 14]},
        text_config={"model_type": "qwen2", "vocab_size": 151674, **TEXT},
        image_token_id=small.config.image_token_id,
        image_seq_length=256,
        downsample_ratio=0.5,
    )
    processor.image_processor.size = {"height": 448, "width": 448}
    processor.image_seq_length = 256
    return transformers.InternVLForConditionalGeneration, config


def qwen2_5_vl(tiny_parts: Any) -> Any:
    """Qwen2.5-VL-7B's shapes."""
    small, _ = tiny_parts
    config = small.config.__class__(
        vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
        text_config={
            "vocab_size": 152064,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
            **TEXT,
        },
        **{name: getattr(small.config, name) for name in ("image_token_id", "video_token_id")},
        **{name: getattr(small.config, name) for name in ("vision_start_token_id", "vision_end_token_id")},
    )
    return transformers.Qwen2_5_VLForConditionalGeneration, config


MODELS = {
    "internvl3-8b": ("internvl", internvl3, tiled(4)),
    "qwen2.5-vl-7b": ("qwen2_5_vl", qwen2_5_vl, pixels(256 * 28 * 28, 1280 * 28 * 28)),
}


def build(name: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any, dict[str, Any]]:
    """A model of the published shapes with random weights, and its processor."""
    family, shape, images = MODELS[name]
    small, processor = families.build(family)
    kind, config = shape((small, processor))
    with torch.device(device), no_init_weights():
        model = kind._from_config(config, dtype=dtype, attn_implementation="sdpa")
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02, generator=generator)
    model.generation_config = small.generation_config
    return model, processor, images


def group(number: int, questions: int, side: int) -> PromptGroup:
    """Two square images, about 700 tokens of knowledge, and some questions."""
    reference, query = (
        Picture(f"{name}-{number}", tiny.image(2 * number + which, side, side))
        for which, name in enumerate(("reference", "query"))
    )
    prompts = tuple(
        Prompt(f"{number}-{i}", QUESTION.format(i), dict.fromkeys("ABCD", ""), False)
        for i in range(questions)
    )
    content = ("Reference ", reference, " query ", query, " The metal surface shows a scratch." * 60)
    return PromptGroup("You inspect.", content, (reference,), query, prompts, id=str(number))


def rate(engine: SharedPrefixModel, groups: list[PromptGroup], unit: int, device: torch.device) -> float:
    """Questions a second of wall-clock time, images prepared in threads."""
    decoding = Decoding("direct", 2)
    units = [tuple(groups[start : start + unit]) for start in range(0, len(groups), unit)]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for results in engine.stream(units, decoding):
        assert not any(result.reason for result in results), results
    return sum(len(one.prompts) for one in groups) / (time.perf_counter() - start)


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--unit", type=int, default=8)
    parser.add_argument("--side", type=int, default=896)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model, processor, images = build(options.model, device, dtype)
    groups = [group(number, options.questions, options.side) for number in range(options.pairs)]
    found: dict[str, Any] = {"model": options.model, "device": str(device)}
    for share in (True, False):
        engine = SharedPrefixModel(model, processor, images=images, share_prefix=share, threads=8)
        warm = [group(10_000 + number, options.questions, options.side) for number in range(options.unit)]
        rate(engine, warm, options.unit, device)
        found["shared" if share else "unshared"] = round(rate(engine, groups, options.unit, device), 2)
        found[f"counters_{'shared' if share else 'unshared'}"] = dict(engine.counters())
    found["ratio"] = round(found["shared"] / found["unshared"], 2)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
