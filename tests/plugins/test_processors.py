"""Every family's processor loads without torchvision, from folders as saved and as published."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

from harness.errors import BadInput
from plugins.processors import load_processor
from tests import families, tiny

MESSAGES = [
    {"role": "system", "content": [{"type": "text", "text": "You inspect."}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Normal:"},
            {"type": "image"},
            {"type": "text", "text": "Query:"},
            {"type": "image"},
            {"type": "text", "text": "Any defect? A. Yes B. No"},
        ],
    },
]
#: What the folders on the hub say: type of the image processor, class of the processor.
PUBLISHED = {
    "internvl": ("GotOcr2ImageProcessorFast", "InternVLProcessor"),
    "qwen2_5_vl": ("Qwen2VLImageProcessor", "Qwen2_5_VLProcessor"),
    "glm4v": ("Glm4vImageProcessor", "Glm4vProcessor"),
    "llava_onevision": ("LlavaOnevisionImageProcessor", "LlavaOnevisionProcessor"),
    "llava_interleave": ("SiglipImageProcessor", "LlavaProcessor"),
    "pixtral": ("PixtralImageProcessor", "PixtralProcessor"),
    "gemma3": ("Gemma3ImageProcessor", "Gemma3Processor"),
}
every_family = pytest.mark.parametrize("name", families.FAMILIES)


def ids(name: str, processor: Any) -> list[int]:
    """Token ids of a prompt with two images of different shapes."""
    text = processor.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    pictures: Any = [tiny.image(0), tiny.image(1, 90, 50)]
    encoded = processor(text=text, images=[pictures] if name == "llava_onevision" else pictures)
    found: list[int] = [int(token) for token in encoded["input_ids"][0]]
    return found


@every_family
def test_a_saved_folder_gives_the_same_tokens(name: str, tmp_path: Path) -> None:
    model, built = families.build(name)
    loaded = load_processor(families.save(tmp_path, name), model.config.model_type)
    assert type(loaded).__name__ == type(built).__name__
    assert ids(name, loaded) == ids(name, built)
    images = [token for token in ids(name, built) if token == model.config.image_token_id]
    assert 2 * 4 <= len(images) <= 2 * 64


@every_family
@pytest.mark.parametrize("suffix", ["", "Fast"])
def test_a_published_folder_gives_the_same_tokens(name: str, suffix: str, tmp_path: Path) -> None:
    """Those keep the processor in files of an older layout, under names that need torchvision."""
    model, built = families.build(name)
    folder = families.save(tmp_path, name)
    published(folder, *PUBLISHED[name], suffix)
    assert ids(name, load_processor(folder, model.config.model_type)) == ids(name, built)


def published(folder: Path, image_type: str, processor_class: str, suffix: str) -> None:
    """Rewrite a saved folder's processor files as the hub's older checkpoints have them."""
    saved = json.loads((folder / "processor_config.json").read_text())
    images = saved.pop("image_processor")
    images["image_processor_type"] = image_type.removesuffix("Fast") + suffix
    images["processor_class"] = processor_class
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    films = {"video_processor_type": "Qwen2VLVideoProcessor", "processor_class": processor_class}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(films))
    (folder / "processor_config.json").write_text(json.dumps({**saved, "processor_class": processor_class}))
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()


def test_a_folder_with_image_settings_alone(tmp_path: Path) -> None:
    """As Qwen2.5-VL was published: no processor_config.json at all."""
    _, built = families.build("qwen2_5_vl")
    folder = families.save(tmp_path, "qwen2_5_vl")
    published(folder, *PUBLISHED["qwen2_5_vl"], "")
    (folder / "processor_config.json").unlink()
    assert ids("qwen2_5_vl", load_processor(folder, "qwen2_5_vl")) == ids("qwen2_5_vl", built)


@pytest.mark.parametrize("name", ["llava_interleave", "pixtral"])
def test_the_tower_says_which_llava_it_is(name: str, tmp_path: Path) -> None:
    """An early LLaVA checkpoint names no processor, and leaves the patch to the model's configuration."""
    _, built = families.build(name)
    folder = families.save(tmp_path, name)
    published(folder, *PUBLISHED[name], "")
    images = json.loads((folder / "preprocessor_config.json").read_text())
    del images["processor_class"]
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "processor_config.json").unlink()
    loaded = load_processor(folder, "llava")
    assert type(loaded).__name__ == type(built).__name__
    loaded.num_additional_image_tokens = 0  # nowhere else in a folder; the default is right for CLIP's towers
    assert ids(name, loaded) == ids(name, built)


@every_family
def test_a_checkpoint_answers_by_what_it_is_shown_and_asked(name: str) -> None:
    """Else no test on these checkpoints could fail: both picture and question must move the logits."""
    model, parts = families.build(name)
    base = logits(name, model, parts, "A. Yes B. No", 0)
    assert (logits(name, model, parts, "What kind of defect? A. Scratch B. Hole", 0) - base).abs().max() > 0.1
    assert (logits(name, model, parts, "A. Yes B. No", 1) - base).abs().max() > 0.1


def logits(name: str, model: Any, parts: Any, question: str, picture: int) -> Any:
    import torch

    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = parts.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    encoded = parts(text=text, images=[tiny.image(picture)], return_tensors="pt")
    with torch.no_grad():
        return model(**encoded).logits[0, -1]


@every_family
def test_a_checkpoint_loads_whole_and_ends_on_its_own_token(name: str, tmp_path: Path) -> None:
    model, parts = families.build(name)
    folder = families.save(tmp_path, name)
    loaded, report = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all((ours[weight] == theirs[weight]).all() for weight in ours)
    assert parts.tokenizer.eos_token_id in loaded.generation_config.eos_token_id
    assert all(len(parts.tokenizer.encode(letter, add_special_tokens=False)) == 1 for letter in "ABCDE")


def test_transformers_is_left_as_it_was() -> None:
    """Pixtral's processor is had without the module that torchvision would have brought."""
    families.build("pixtral")
    if not transformers.utils.is_torchvision_available():
        assert "transformers.models.pixtral.image_processing_pixtral" not in sys.modules
    assert "video_processor" in transformers.Qwen2_5_VLProcessor.get_attributes()


def test_what_cannot_be_loaded_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'kimi_vl', whose processor is not known"):
        load_processor(tmp_path, "kimi_vl")
    with pytest.raises(BadInput, match="no checkpoint folder"):
        load_processor(tmp_path / "missing", "internvl")
    with pytest.raises(BadInput, match="does not load"):
        load_processor(tmp_path, "internvl")
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(BadInput, match="no readable JSON"):
        load_processor(tmp_path, "llava")


def test_a_folders_own_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the user asked on the terminal whether it may."""
    folder, ran = families.save(tmp_path / "evil", "internvl"), tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass EvilProcessor: pass\n")
    config = json.loads((folder / "processor_config.json").read_text())
    config["image_processor"] |= {
        "image_processor_type": "EvilProcessor",
        "auto_map": {"AutoImageProcessor": "evil.EvilProcessor"},
    }
    (folder / "processor_config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    with pytest.raises(BadInput, match="does not load"):
        load_processor(folder, "internvl")
    assert not ran.exists()
