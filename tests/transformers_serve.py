"""A real chat server that we did not write: `transformers serve` with a tiny random LLaVA.

Not with the tiny InternVL of the other tests: the server loads a processor by itself, and InternVL's wants a
video processor, which wants torchvision.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

#: What the server needs beyond transformers itself.
NEEDED = ("fastapi", "uvicorn", "openai", "pydantic")


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, str]]:
    """The server's address and the model's name, while it runs.

    Args:
        folder: an empty one, for the model and the server's log.
    """
    _write_model(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "*"}
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder)]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            env={**os.environ, **offline},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 90
            while not _healthy(url):
                assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
                time.sleep(0.2)
            yield url, str(folder)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _write_model(folder: Path) -> None:
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        GenerationConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    from tests import tiny

    words = tiny.tokenizer()
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    language = {"vocab_size": len(words), "num_key_value_heads": 2, "initializer_range": 0.3}
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 56, "patch_size": 14, **size},
        text_config={"model_type": "qwen2", "max_position_embeddings": 4096, **language, **size},
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    spoken = {n for word, n in words.get_vocab().items() if word[0] == "\u0120" and word[1:].isalpha()}
    model.generation_config = GenerationConfig(  # it says words and comes to an end
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        do_sample=True,
        suppress_tokens=sorted(set(range(len(words))) - spoken - {words.eos_token_id}),
        exponential_decay_length_penalty=(12, 1.2),
    )
    model.save_pretrained(folder)
    square = {"height": 56, "width": 56}
    LlavaProcessor(
        CLIPImageProcessorPil(size=square, crop_size=square),
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=tiny.CHAT_TEMPLATE,
        image_token="<IMG_CONTEXT>",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False
