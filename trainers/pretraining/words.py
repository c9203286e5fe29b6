"""The mini base's tokenizer and processor, and the words they are made from.

The tokenizer is byte-level BPE whose merges may cross spaces but never a line, a sentence or an option letter
(``A.`` before an option, ``A`` alone). A vocabulary so trained on the prompts themselves turns their fixed
sentences into single tokens: a mini prompt is short, and an option is a token or two, which is what a model
of this size can bind to a letter.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.protocol import Protocol, shipped_protocols
from harness.records import MODES, Mode
from plugins.mini.catalogue import FAMILIES
from plugins.mini.defects import DEFECTS
from plugins.mini.pieces import COLOURS
from plugins.mini.questions import (
    CELLS,
    LETTERS,
    NUMBERS,
    OUTLINES,
    class_question,
    object_questions,
    sentence,
)
from trainers.pretraining.architecture import IMAGE_TOKENS
from trainers.pretraining.scenes import SIZE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from emit_model.processing import InternVLProcessor

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>",
    "<COMP_CONTEXT>", "<think>", "</think>", "<answer>", "</answer>",
)  # fmt: skip
#: Fixed words of the pre-training exercises.
SCENE_WORDS = (
    "product: ", "outline: ", "body: ", "defect: ", "place: ", "Look at this picture.",
    "Where is the bright spot?", "The scene in words:", "The list in words:", "No spot.",
    "Question: Where is the bright spot?", "Which line says this:", "Question: Is there a bright spot?",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def prompt_sentences(protocol: Protocol, mode: Mode) -> Iterator[str]:
    """Every fixed sentence of a protocol's prompts, rendered for one, two and no references."""
    from harness.protocol import IMAGE_MARK, compiled

    template = compiled(protocol.content)
    for shots in (0, 1, 2):
        for texts in ((), ("<Normal>",)):
            yield template.render(
                references=[IMAGE_MARK] * shots,
                query=IMAGE_MARK,
                knowledge=texts,
                instruction=protocol.instructions[mode],
            )
    yield protocol.system


def corpus() -> list[str]:
    """The mini world's phrases and the prompts' sentences, each equally often."""
    from harness.protocol import IMAGE_MARK

    texts: list[str] = ["user", "assistant", "system", "Below are some hints for your reference:", "<Normal>"]
    for protocol in shipped_protocols():
        for mode in MODES:
            for text in prompt_sentences(protocol, mode):
                texts += text.replace(IMAGE_MARK, "\n").split("\n")
    options = [*CELLS, *NUMBERS, *OUTLINES, "Yes.", "No.", "Normal."]
    options += [sentence(word) for word in (*COLOURS, *FAMILIES, *DEFECTS)]
    for defect in DEFECTS.values():
        options += [defect.appearance, defect.effect]
        texts += [f"<{defect.name.capitalize()}>", f" Description: {defect.appearance} {defect.effect}"]
    texts += [
        f"{letter}. {option}\nI see: {option} {option} {letter}. {option}"
        for option in options
        for letter in LETTERS
    ]
    rng = np.random.RandomState(0)
    for family in FAMILIES.values():
        design = family.design(family.random_look(rng))
        texts.append(family.summary.split("{")[0])
        texts += [" " + piece.strip() for piece in re.split(r"{\w+}", family.summary)]
        for element in design.elements:
            texts.append(f"How many pieces of the kind '{element.part}' does the product have?")
            texts.append(f"{element.part}: ")
            texts.append(f"What colour does the piece '{element.part}' of the product have?")
        texts += [
            f"Question: {choice.text}" for choice in (*object_questions(design), class_question(design))
        ]
        texts += [f"{words} " for look in [design.look] for words in (look.body, look.trim)]
    texts += [f" {number.lower()[:-1]} " for number in NUMBERS] + [f" {colour} " for colour in COLOURS] * 2
    stem = "Question: There is a defect in the object. "
    texts += [stem + tail for tail in (
        "What is the type of the defect?", "Where is the defect?", "What is the appearance of the defect?",
        "What is the effect of the defect?",
    )]  # fmt: skip
    texts += [
        "Question: Is there any defect in the object?",
        "Describe the image.",
        "Describe the last image.",
        *SCENE_WORDS,
    ]
    texts = list(dict.fromkeys(texts)) * 8
    return texts + [chr(code) for code in range(32, 127)]


def build_tokenizer(vocabulary: int = 2304) -> PreTrainedTokenizerFast:
    """Train the tokenizer on :func:`corpus`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Split(Regex(r" ?(?<![\w'])[A-E](?![\w'])\.?"), "isolated"),
            pre_tokenizers.Split(Regex(r"(?<=[.:?>]) "), "merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> InternVLProcessor:
    """The real InternVL processor at the mini size: one tile, no thumbnail."""
    from transformers import GotOcr2ImageProcessorPil

    from emit_model.processing import InternVLProcessor

    images = GotOcr2ImageProcessorPil(size={"height": SIZE, "width": SIZE}, crop_to_patches=False)
    return InternVLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        image_seq_length=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    build_processor(build_tokenizer()).save_pretrained(options.out)
