"""What a training is: one frozen record a trainer, read from a preset, a world, an arm and ``--set``.

Every field is checked when a record is made, so a run that starts has no impossible combination in it. Keys
on the command line are ``section.field``; values are read as the field's type.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from harness.errors import BadInput
from trainers.packing import Attention
from trainers.presets import PresetName

Answers = Literal["letter", "think+letter", "both"]
Quantise = Literal["none", "nf4"]
LoraScope = Literal["all", "language"]
Normalise = Literal["group", "batch", "sequence"]
Kl = Literal["k3", "k2"]
Resampling = Literal["none", "same", "all"]
Unsolved = Literal["drop", "neutral", "keep"]
Sampler = Literal["torch", "vllm"]
Weighting = Literal["none", "difficulty", "constant"]


class _Checked:
    """Says which field is out of range, and what it must be."""

    def _require(self, section: str, **checks: tuple[bool, str]) -> None:
        for name, (good, wanted) in checks.items():
            if not good:
                raise BadInput(f"{section}.{name} is {getattr(self, name)!r}; it must be {wanted}")


@dataclass(frozen=True, slots=True)
class ModelSettings(_Checked):
    """What of the model learns, and how it is held in memory."""

    contrast: str = "paper"  #: preset of ``emit_model.PRESETS``
    layers: tuple[int, ...] = ()  #: tower layers that are compared; empty: the contrast preset's
    window: int = -1  #: ``k`` of Eq. 1; -1: the contrast preset's
    soft_prompt: bool = True
    contrastive_embeddings: bool = True
    #: Words whose embeddings the projector starts between (cool, hot); empty: Kaiming, as released.
    projector_words: tuple[str, ...] = ()
    quantise: Quantise = "nf4"  #: QLoRA: 4-bit NF4 with double quantisation
    lora_rank: int = 8
    lora_alpha: int = 32
    #: ``all``: every linear layer of language model and tower ("the entire model"). ``language`` leaves the
    #: tower alone, so that its features are computed once a picture for the whole training.
    lora_scope: LoraScope = "all"
    full_modules: tuple[str, ...] = ("contrast",)  #: trained in full beside the adapters
    tiles: int = 6  #: most tiles an image is cut into
    checkpointing: bool = True  #: gradient checkpointing: far less memory, one more forward
    attention: Attention = "sdpa"  #: ``flex_attention`` skips what nobody sees; it is compiled, for a GPU
    row_tokens: int = 8192  #: questions of an image pair share a packed row up to about so many tokens
    feature_cache: float = 4.0  #: GiB of image features that are kept where the tower does not learn

    def __post_init__(self) -> None:
        self._require(
            "model",
            contrast=(self.contrast in ("paper", "release"), "paper or release"),
            projector_words=(len(self.projector_words) in (0, 2), "empty or two words"),
            quantise=(self.quantise in get_args(Quantise), "none or nf4"),
            lora_rank=(self.lora_rank > 0, "1 or more"),
            lora_alpha=(self.lora_alpha > 0, "1 or more"),
            lora_scope=(self.lora_scope in get_args(LoraScope), "all or language"),
            full_modules=(
                set(self.full_modules) <= {"contrast", "multi_modal_projector"},
                "out of contrast and multi_modal_projector",
            ),
            tiles=(self.tiles > 0, "1 or more"),
            attention=(self.attention in get_args(Attention), "sdpa or flex_attention"),
            row_tokens=(self.row_tokens > 0, "1 or more"),
            feature_cache=(self.feature_cache >= 0, "0 or more"),
        )


@dataclass(frozen=True, slots=True)
class Optimisation(_Checked):
    """AdamW with warm-up and cosine decay, the same for every trainer."""

    epochs: float = 1.0
    max_steps: int = 0  #: ends earlier, the schedule with it; 0: after the epochs
    learning_rate: float = 1e-5
    warmup: float = 0.03  #: share of the steps
    weight_decay: float = 0.01
    beta2: float = 0.999
    max_grad_norm: float = 1.0
    batch: int = 64  #: answers an update: rows of questions, or completions
    save_every: int = 50  #: updates between checkpoints
    keep: int = 2  #: checkpoints that are kept

    def __post_init__(self) -> None:
        self._require(
            "optimisation",
            epochs=(0 < self.epochs < math.inf, "more than 0 and finite"),
            max_steps=(self.max_steps >= 0, "0 or more"),
            learning_rate=(self.learning_rate > 0, "more than 0"),
            warmup=(0 <= self.warmup < 1, "from 0 to less than 1"),
            weight_decay=(self.weight_decay >= 0, "0 or more"),
            beta2=(0 < self.beta2 < 1, "between 0 and 1"),
            max_grad_norm=(self.max_grad_norm > 0, "more than 0"),
            batch=(self.batch > 0, "1 or more"),
            save_every=(self.save_every > 0, "1 or more"),
            keep=(self.keep > 0, "1 or more"),
        )


@dataclass(frozen=True, slots=True)
class SupervisedSettings(Optimisation):
    """Stage 1 and SFT: which answers are learnt."""

    answers: Answers = "letter"

    def __post_init__(self) -> None:
        Optimisation.__post_init__(self)
        self._require(
            "supervised", answers=(self.answers in get_args(Answers), "letter, think+letter or both")
        )


@dataclass(frozen=True, slots=True)
class RolloutSettings(_Checked):
    """How responses are drawn, and drawn again."""

    group: int = 8  #: G, responses a question
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  #: 0: from all tokens
    max_new_tokens: int = 512
    #: For a question without a correct response: draw the ``same`` again and learn from the last group, or
    #: learn from ``all`` of its groups.
    resampling: Resampling = "none"
    budget: int = 3  #: most further groups
    unsolved: Unsolved = "keep"  #: what becomes of a group that stays without a correct response
    sampler: Sampler = "torch"

    def __post_init__(self) -> None:
        self._require(
            "rollout",
            group=(self.group > 1, "2 or more"),
            temperature=(self.temperature > 0, "more than 0"),
            top_p=(0 < self.top_p <= 1, "more than 0 and at most 1"),
            top_k=(self.top_k >= 0, "0 or more"),
            max_new_tokens=(self.max_new_tokens > 0, "1 or more"),
            resampling=(self.resampling in get_args(Resampling), "none, same or all"),
            budget=(self.budget >= 0, "0 or more"),
            unsolved=(self.unsolved in get_args(Unsolved), "drop, neutral or keep"),
            sampler=(self.sampler in get_args(Sampler), "torch or vllm"),
        )


@dataclass(frozen=True, slots=True)
class GrpoSettings(Optimisation):
    """GRPO (Eq. 2-4), and the weights of difficulty-aware GRPO (Eq. 5-6)."""

    beta: float = 0.01  #: weight of the KL divergence
    clip: float = 0.2  #: epsilon of Eq. 4
    normalise: Normalise = "group"
    kl: Kl = "k3"
    iterations: int = 1  #: updates on one set of responses
    reward: PresetName = "paper"  #: rules of the reward
    weighting: Weighting = "none"

    def __post_init__(self) -> None:
        Optimisation.__post_init__(self)
        self._require(
            "grpo",
            beta=(self.beta >= 0, "0 or more"),
            clip=(0 < self.clip < 1, "between 0 and 1"),
            normalise=(self.normalise in get_args(Normalise), "group, batch or sequence"),
            kl=(self.kl in get_args(Kl), "k3 or k2"),
            iterations=(self.iterations > 0, "1 or more"),
            reward=(self.reward in get_args(PresetName), "paper or release"),
            weighting=(self.weighting in get_args(Weighting), "none, difficulty or constant"),
        )


@dataclass(frozen=True, slots=True)
class DataSettings(_Checked):
    """Which samples are trained on."""

    text_samples: bool = True  #: descriptions that stand in for the query image
    limit: int = 0  #: at most so many image pairs, drawn by the seed; 0: all

    def __post_init__(self) -> None:
        self._require("data", limit=(self.limit >= 0, "0 or more"))


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole training."""

    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    stage1: SupervisedSettings = field(default_factory=lambda: SupervisedSettings(epochs=2.0))
    sft: SupervisedSettings = field(default_factory=SupervisedSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    grpo: GrpoSettings = field(default_factory=GrpoSettings)

    def __post_init__(self) -> None:
        if self.grpo.batch % self.rollout.group:
            raise BadInput(
                f"grpo.batch is {self.grpo.batch}; it must be a multiple of rollout.group "
                f"({self.rollout.group})"
            )

    def replaced(self, changes: Mapping[str, Any]) -> Settings:
        """The same with other values by dotted key; texts are read as the field's type.

        Raises:
            BadInput: an unknown key, or a value that does not fit.

        >>> Settings().replaced({"grpo.beta": "0.04"}).grpo.beta
        0.04
        """
        sections: dict[str, dict[str, Any]] = {}
        for key, value in changes.items():
            section, dot, name = key.partition(".")
            holder = getattr(self, section, None) if dot and section in _SECTIONS else self
            name = name if dot and holder is not self else key
            kinds = get_type_hints(type(holder))
            if name not in kinds or (holder is self and name in _SECTIONS):
                raise BadInput(_unknown(key))
            sections.setdefault(section if holder is not self else "", {})[name] = _read(
                value, kinds[name], key
            )
        found = {
            section: replace(getattr(self, section), **values)
            for section, values in sections.items()
            if section
        }
        return replace(self, **sections.get("", {}), **found)

    @property
    def questions(self) -> int:
        """Questions an update of GRPO: ``grpo.batch`` counts responses."""
        return self.grpo.batch // self.rollout.group

    def as_json(self) -> dict[str, Any]:
        """Plain data, as the run's folder holds it."""
        return asdict(self)


_SECTIONS = ("data", "model", "stage1", "sft", "rollout", "grpo")


def keys() -> list[str]:
    """Every key that ``--set`` takes."""
    names = [name.name for name in fields(Settings) if name.name not in _SECTIONS]
    for section in _SECTIONS:
        names += [f"{section}.{part.name}" for part in fields(type(getattr(Settings(), section)))]
    return names


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, keys(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(keys())}"
    return f"there is no setting {key!r}; {hint}"


def _read(value: Any, kind: Any, key: str) -> Any:
    """A value of the field's type, from a text or from data."""
    if get_origin(kind) is Literal:
        return value
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        parts = [part for part in value.split(",") if part] if isinstance(value, str) else list(value)
        return tuple(_read(part, inner, key) for part in parts)
    try:
        if kind is bool:
            if isinstance(value, bool):
                return value
            return {"true": True, "false": False}[str(value).lower()]
        if kind is int and isinstance(value, float) and value != int(value):
            raise ValueError(value)
        return kind(value)
    except (TypeError, ValueError, KeyError) as error:
        raise BadInput(f"{key} is {value!r}; it must be {_WORDS.get(kind, kind.__name__)}") from error


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
