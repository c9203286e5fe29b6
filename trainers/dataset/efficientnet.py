"""EfficientNet-Lite0 as an image encoder: sixteen blocks, and the mean over the places of their last map.

The names of the parts are those of the released weights, so that these load strictly, without a table.
Architecture: Tan and Le, "EfficientNet" (ICML 2019), in the Lite variant (no squeeze-and-excitation, ReLU6).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

SIDE = 224  #: pixels a side of the input
DIMENSION = 1280  #: of a feature
#: Of each stage: kernel, stride of the first block, expansion, channels, blocks.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM = 32


class EfficientNetLite0(nn.Module):
    """Images ``(B, 3, 224, 224)``, scaled to about -1 to 1, to features ``(B, 1280)``."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, _STEM, 3, stride=2)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.ModuleList()
        width = _STEM
        for kernel, stride, expansion, channels, blocks in _STAGES:
            for number in range(blocks):
                self._blocks.append(_Block(width, channels, kernel, stride if number == 0 else 1, expansion))
                width = channels
        self._conv_head = _SameConv(width, DIMENSION, 1)
        self._bn1 = _norm(DIMENSION)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, 1280)``, not yet of unit length."""
        maps = functional.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            maps = block(maps)
        maps = functional.relu6(self._bn1(self._conv_head(maps)))
        return maps.mean((2, 3))


def read_released(state: Mapping[str, Tensor]) -> EfficientNetLite0:
    """The network with the released weights, ready to encode.

    Args:
        state: name -> tensor, with a classifier (``_fc``) that is left out.

    Raises:
        RuntimeError: a tensor is missing, left over or of another shape.
    """
    network = EfficientNetLite0()
    network.load_state_dict({name: value for name, value in state.items() if not name.startswith("_fc.")})
    return network.eval().requires_grad_(False)


class _Block(nn.Module):
    """Expand, filter each channel for itself, project; what came in is added where the shapes agree."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.expands = expansion != 1
        self.adds = stride == 1 and inside == outside
        if self.expands:
            self._expand_conv = _SameConv(inside, wide, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride=stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = _SameConv(wide, outside, 1)
        self._bn2 = _norm(outside)

    def forward(self, maps: Tensor) -> Tensor:
        wide = functional.relu6(self._bn0(self._expand_conv(maps))) if self.expands else maps
        wide = functional.relu6(self._bn1(self._depthwise_conv(wide)))
        narrow: Tensor = self._bn2(self._project_conv(wide))
        return maps + narrow if self.adds else narrow


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does, where the weights come from: the odd row goes to the end."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inside, outside, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        pads: list[int] = []
        for side, kernel, stride in zip(maps.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            short = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [short // 2, short - short // 2]
        return super().forward(functional.pad(maps, pads))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
