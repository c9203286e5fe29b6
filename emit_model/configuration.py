"""What an EMIT checkpoint is: InternVL's configuration plus one section on comparing query and reference.

The paper leaves several choices of the comparison open and the released code makes some differently. All of
them are fields of :class:`Contrast`, and the two named presets are data in :data:`PRESETS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, get_args

from transformers import AutoConfig, InternVLConfig

from emit_model.heat_maps import Fuse, Outside

#: What the presets' layers and window were chosen for: InternViT-300M at 448 px, patches of 14 px.
PRESET_DEPTH = 24
PRESET_GRID = 32


@dataclass(frozen=True)
class Contrast:
    """How query and reference are compared, and how the result enters the language model.

    Layer indices count as Hugging Face's hidden states do: 0 is the patch embedding, ``i`` block i's output.
    """

    layers: tuple[int, ...] = (4, 8, 16, 20)
    window: int = 6  #: ``k`` of Eq. 1, in patches
    outside: Outside = "exclude"
    fuse: Fuse = "mean"
    rotations: tuple[int, ...] = (0,)  #: views of each reference, in quarter turns against the clock
    soft_prompt_length: int = 8  #: tokens
    kernel: int = 4  #: of the projector's convolution, in patches
    stride: int = 2
    padding: int = 1
    comp_token_id: int = 151674  #: of ``<COMP_CONTEXT>``; it needs no row in the embedding matrix
    use_soft_prompt: bool = True  #: ablation "w/o SP" when False
    use_contrast: bool = True  #: ablation "w/o CE" when False

    def __post_init__(self) -> None:
        checks = (
            ("layers", len(self.layers) > 0 and min(self.layers) >= 0, "one or more indices from 0"),
            ("window", self.window >= 0, "0 or more patches"),
            ("outside", self.outside in get_args(Outside), f"one of {', '.join(get_args(Outside))}"),
            ("fuse", self.fuse in get_args(Fuse), f"one of {', '.join(get_args(Fuse))}"),
            (
                "rotations",
                set(self.rotations) <= {0, 1, 2, 3} and len(self.rotations) > 0,
                "out of 0, 1, 2, 3",
            ),
            ("soft_prompt_length", self.soft_prompt_length > 0, "1 or more tokens"),
            ("kernel", self.kernel > 0, "1 or more patches"),
            ("stride", self.stride > 0, "1 or more patches"),
            ("padding", self.padding >= 0, "0 or more patches"),
        )
        for name, good, wanted in checks:
            if not good:
                raise ValueError(f"contrast.{name} is {getattr(self, name)!r}; it must be {wanted}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Contrast:
        """Read from a configuration file's section; raises ValueError on an unknown field."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"contrast: unknown field {', '.join(sorted(unknown))}")
        checked: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**checked)

    def section(self) -> dict[str, Any]:
        """The same as plain data, as a configuration file holds it."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    def replaced(self, **changes: Any) -> Contrast:
        """The same with some fields changed; raises ValueError as :meth:`from_mapping` does."""
        return Contrast.from_mapping({**asdict(self), **changes})

    def scaled(self, depth: int, grid: int) -> Contrast:
        """The same comparison for another vision tower: layers and window in proportion to InternViT's.

        Args:
            depth: the tower's blocks.
            grid: its patches along an edge.

        >>> PRESETS["release"].scaled(depth=6, grid=8).layers
        (1, 2, 4, 5)
        """
        layers = sorted({max(1, round(layer * depth / PRESET_DEPTH)) for layer in self.layers})
        return replace(self, layers=tuple(layers), window=max(1, round(self.window * grid / PRESET_GRID)))

    def tokens(self, height: int, width: int) -> int:
        """How many contrastive embeddings a heat map of ``height`` x ``width`` patches becomes."""

        def steps(size: int) -> int:
            return (size + 2 * self.padding - self.kernel) // self.stride + 1

        return steps(height) * steps(width)


#: ``paper``: what the paper says, with the released window and layers where it gives no value, and the eight
#: tokens of its hint. ``release``: the released code, which also rotates the reference, counts patches
#: outside the window as similarity 0, and has nine soft prompt tokens.
PRESETS: Mapping[str, Contrast] = MappingProxyType(
    {
        "paper": Contrast(),
        "release": Contrast(outside="zero", rotations=(0, 1, 2, 3), soft_prompt_length=9),
    }
)


class EmitConfig(InternVLConfig):
    """InternVL's configuration with a ``contrast`` section (see :class:`Contrast`)."""

    model_type = "emit"

    contrast: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        settings = Contrast.from_mapping(self.contrast or {})
        self.contrast = settings.section()
        tower: Any = self.vision_config
        if max(settings.layers) > tower.num_hidden_layers:
            raise ValueError(
                f"contrast.layers is {settings.layers}, but the vision tower has "
                f"{tower.num_hidden_layers} blocks"
            )

    @property
    def comparison(self) -> Contrast:
        """The ``contrast`` section as a checked record."""
        return Contrast.from_mapping(self.contrast or {})

    @comparison.setter
    def comparison(self, settings: Contrast) -> None:
        self.contrast = settings.section()

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of the vision tower along height and width."""
        tower: Any = self.vision_config
        size, patch = tower.image_size, tower.patch_size
        return size[0] // patch[0], size[1] // patch[1]

    @property
    def placeholders(self) -> int:
        """How many ``<COMP_CONTEXT>`` a contrastive prompt holds: soft prompt first, then the heat map's."""
        settings = self.comparison
        contrast = settings.tokens(*self.grid) if settings.use_contrast else 0
        return contrast + (settings.soft_prompt_length if settings.use_soft_prompt else 0)

    @classmethod
    def from_internvl(cls, config: InternVLConfig, contrast: Contrast) -> EmitConfig:
        """An EMIT configuration around a plain InternVL one."""
        values = config.to_dict()
        for key in ("model_type", "architectures", "transformers_version"):
            values.pop(key, None)
        return cls(**values, contrast=contrast.section())


AutoConfig.register(EmitConfig.model_type, EmitConfig, exist_ok=True)
