"""TRL's side of the benchmark: its ``GRPOTrainer``, set to do what ours does on the scene."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value
from peft import LoraConfig
from transformers import InternVLForConditionalGeneration, TrainerCallback
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

from emit_model import InternVLProcessor, load_processor
from harness.records import Picture
from plugins.engine.prompts import PromptBuilder
from tests.performance.meter import Meter
from tests.performance.scene import BASE, DATA, SIZES, Case
from tests.trainers.small import PROTOCOL, wake
from trainers.adapters import linear_layers
from trainers.prompts import PromptMaker
from trainers.rewards import reward
from trainers.samples import read_training_set


class Metered(TrainerCallback):
    """Measures a step from the generation of responses to the weights' update."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._meter.begin()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._meter.end()


def dataset(folder: Path, case: Case, processor: InternVLProcessor) -> Dataset:
    """The scene's questions as TRL takes them: the same messages, pictures in their places."""
    maker = PromptMaker(processor, PROTOCOL, 0, case.tiles)
    rows = []
    for sample in read_training_set(folder / DATA).samples:
        group = maker.open([sample], "think").group
        parts = [
            {"type": "image"} if isinstance(part, Picture) else {"type": "text", "text": part}
            for part in (*group.content, group.prompts[0].text)
        ]
        system = [{"type": "text", "text": group.system}]
        rows.append(
            {
                "prompt": [{"role": "system", "content": system}, {"role": "user", "content": parts}],
                "images": [part.pixels for part in group.content if isinstance(part, Picture)],
                "answer": sample.answer,
                "options": json.dumps(sample.options),
            }
        )
    text = Value("string")
    message = {"role": text, "content": List({"type": text, "text": text})}
    kinds = {"prompt": List(message), "images": List(Image()), "answer": text, "options": text}
    return Dataset.from_list(rows, Features(kinds))


def never_drawn(model: Any, processor: InternVLProcessor) -> list[int]:
    """Ids that our sampler leaves out too: an image token in a response would break the next forward."""
    rows, known = model.lm_head.weight.shape[0], len(processor.tokenizer)
    control = PromptBuilder(processor).control_ids - {processor.tokenizer.eos_token_id}
    return sorted({*control, *range(known, rows)})


def rewards(processor: InternVLProcessor, case: Case) -> Callable[..., list[float]]:
    """Our reward as TRL calls one."""
    builder = PromptBuilder(processor)

    def verifiable(
        completion_ids: Sequence[Sequence[int]], answer: Sequence[str], options: Sequence[str], **_: Any
    ) -> list[float]:
        return [
            reward(builder.decode(ids), one, json.loads(letters), len(ids), max_tokens=case.response).total
            for ids, one, letters in zip(completion_ids, answer, options, strict=True)
        ]

    return verifiable


def configuration(folder: Path, case: Case, suppressed: Sequence[int], device: str) -> GRPOConfig:
    """Our settings in TRL's words; one update a step, on all of its responses at once."""
    settings = case.settings
    return GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=case.group * case.questions,
        num_generations=case.group,
        max_completion_length=case.response,
        generation_kwargs={
            "min_new_tokens": case.response,
            "suppress_tokens": list(suppressed),
        },
        beta=settings.grpo.beta,
        learning_rate=settings.grpo.learning_rate,
        weight_decay=settings.grpo.weight_decay,
        lr_scheduler_type="cosine",
        num_train_epochs=1,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=device == "cpu",
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
    )


def make_trainer(folder: Path, case: Case, device: str = "cpu") -> tuple[GRPOTrainer, Any, InternVLProcessor]:
    """TRL's trainer, the model inside it, and the processor that it calls."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    processor = load_processor(folder / BASE)
    cutter = processor.image_processor
    cutter.crop_to_patches, cutter.min_patches, cutter.max_patches = case.tiles > 1, 1, case.tiles
    model = InternVLForConditionalGeneration.from_pretrained(folder / BASE, dtype=SIZES[case.size].dtype)
    learnt = case.settings.model
    adapters = LoraConfig(
        r=learnt.lora_rank,
        lora_alpha=learnt.lora_alpha,
        lora_dropout=0.0,
        target_modules=linear_layers(model, learnt.lora_scope),
    )
    torch.manual_seed(case.settings.seed)  # the same adapters as ours
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=rewards(processor, case),
        args=configuration(folder, case, never_drawn(model, processor), device),
        train_dataset=dataset(folder, case, processor),
        processing_class=processor,
        peft_config=adapters,
    )
    wake(model)  # as on our side
    return trainer, model, processor


def run(folder: Path, case: Case, link: Connection | None = None, device: str = "cpu") -> Meter:
    """Train over the scene's questions once, under a meter."""
    torch.set_num_threads(1)
    trainer, model, processor = make_trainer(folder, case, device)
    meter = Meter(model, processor, link)
    trainer.add_callback(Metered(meter))
    trainer.train()
    return meter


def scorings(folder: Path, case: Case) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What the trainer's first step scores, reference and policy: ids (G, P + R), log-probs (G, R)."""
    trainer, _, _ = make_trainer(folder, case)
    score, found = trainer._get_per_token_logps_and_entropies, {}

    def kept(model: Any, ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        scores = score(model, ids, *args, **kwargs)
        found["policy" if torch.is_grad_enabled() else "reference"] = ids, scores[0].detach()
        return scores

    trainer._get_per_token_logps_and_entropies = kept
    trainer.train()
    return found
