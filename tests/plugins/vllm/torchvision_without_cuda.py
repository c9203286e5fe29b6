"""Lets the package index's torchvision, built for CUDA, be imported beside a torch built for CPUs.

Its compiled operators do not load there, and importing it fails on declaring what two of them return.
Declaring their signatures beforehand is enough for what processors use: its transforms. ``make test-vllm``
installs this file into the environment's site-packages, with a ``.pth`` file that imports it at start; it
does nothing until somebody imports torchvision.
"""

import sys
from importlib.abc import MetaPathFinder

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Declaring(MetaPathFinder):
    """Finds nothing itself; declares the operators when torchvision is looked for, once."""

    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            from torch.library import Library

            _Declaring.library = Library("torchvision", "DEF")  # declared as long as somebody holds it
            for operator in ("nms", "qnms"):
                self.library.define(operator + _SIGNATURE)
        return None


sys.meta_path.insert(0, _Declaring())
