from __future__ import annotations

import json
from pathlib import Path

import transformers

from emit_model import COMP_TOKEN, add_comp_token, load_processor
from tests import tiny


def test_a_saved_processor_loads_again_and_is_named_as_plain_transformers_names_it(tmp_path: Path) -> None:
    parts = tiny.processor()
    parts.save_pretrained(tmp_path)
    loaded = load_processor(tmp_path)
    assert isinstance(loaded, transformers.InternVLProcessor)
    assert loaded.chat_template == parts.chat_template
    assert loaded.image_seq_length == parts.image_seq_length
    assert (
        json.loads((tmp_path / "processor_config.json").read_text())["processor_class"] == "InternVLProcessor"
    )
    text, image = "<IMG_CONTEXT>\nAny defect?", tiny.image(0)
    first, second = (p(text=text, images=[image], return_tensors="pt") for p in (parts, loaded))
    assert first["input_ids"].equal(second["input_ids"])
    assert first["pixel_values"].equal(second["pixel_values"])


def test_the_placeholder_is_one_special_token_added_once(tmp_path: Path) -> None:
    parts = tiny.processor()
    before = len(parts.tokenizer)
    token = add_comp_token(parts.tokenizer)
    assert token == before
    assert add_comp_token(parts.tokenizer) == token
    assert len(parts.tokenizer) == before + 1
    ids = parts.tokenizer(f"A{COMP_TOKEN * 3}B", add_special_tokens=False)["input_ids"]
    assert ids.count(token) == 3
    assert len(ids) == 5
    parts.save_pretrained(tmp_path)
    loaded = load_processor(tmp_path).tokenizer
    assert loaded.convert_tokens_to_ids(COMP_TOKEN) == token
    assert loaded.decode([token], skip_special_tokens=True) == ""
