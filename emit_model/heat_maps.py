r"""Heat maps by patch-level comparison of a query with its reference (EMIT paper, Eq. 1).

For layer :math:`l`, query patch :math:`(i, j)` and window :math:`k`

.. math:: H^l_{ij} = \min_{|i-i'| \le k,\; |j-j'| \le k} \; 1 - \cos(F^{Q,l}_{ij}, F^{R,l}_{i'j'})

Only pairs of patches inside the window can matter, so only a thin band of the all-pairs matrix is computed:
the query grid is cut into square blocks, and each block meets the part of the reference that its windows
reach, as one small matrix product. No intermediate is larger than the features of one layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Outside = Literal["exclude", "zero"]
Fuse = Literal["mean", "max", "min"]

#: Edge of a query block in patches. Smaller blocks compute fewer pairs outside the window, larger ones make
#: better matrix products; 8 is the fastest at 32x32 patches, window 6, on the CPUs tried.
BLOCK = 8


def heat_map(
    query: Sequence[Tensor],
    reference: Sequence[Tensor],
    *,
    window: int,
    outside: Outside = "exclude",
    fuse: Fuse = "mean",
) -> Tensor:
    """How much every query patch differs from the most similar reference patch near it.

    The minimum of Eq. 1 runs over the window *and* over all reference views (several shots, rotations).
    Because a layer's distance is ``1 - max similarity``, the mean of the layers' distances and one minus the
    mean of their similarities are the same map: the paper's and the released code's fusion agree.

    Args:
        query: one tensor a layer, ``(B, H, W, D)``; D may differ between layers.
        reference: one tensor a layer, ``(B, R, H, W, D)``: R views of the reference.
        window: ``k`` of Eq. 1, in patches: rows and columns within ``+-k`` take part; 0 is the same place.
        outside: what patches outside the window count for. ``exclude`` (the paper): nothing, the heat lies in
            [0, 2]. ``zero`` (the released code): a similarity of 0, so the heat is capped at 1.
        fuse: how layers are joined: their ``mean`` (paper and release), ``max`` or ``min`` distance.

    Returns:
        ``(B, 1, H, W)`` in float32 (float64 for float64 features); differentiable in both inputs.

    Raises:
        ValueError: no layers, shapes that do not match, a negative window, or an unknown option.
    """
    _check(query, reference, window, outside, fuse)
    layers = torch.stack(
        [
            1 - _best_similarity(_unit(q), _unit(r), window, outside)
            for q, r in zip(query, reference, strict=True)
        ],
        dim=1,
    )
    if fuse == "mean":
        return layers.mean(dim=1, keepdim=True)
    return layers.amax(dim=1, keepdim=True) if fuse == "max" else layers.amin(dim=1, keepdim=True)


def _unit(features: Tensor) -> Tensor:
    """Unit vectors, in at least float32: near a similarity of 1 half precision cannot tell patches apart."""
    precise = features if features.dtype == torch.float64 else features.float()
    return functional.normalize(precise, dim=-1)


def _best_similarity(query: Tensor, reference: Tensor, window: int, outside: Outside) -> Tensor:
    """Largest similarity in the window: unit ``(B, H, W, D)`` and ``(B, R, H, W, D)`` to ``(B, H, W)``."""
    _, height, width, _ = query.shape
    rows = [
        torch.cat([_block(query, reference, window, top, left) for left in range(0, width, BLOCK)], dim=2)
        for top in range(0, height, BLOCK)
    ]
    best = torch.cat(rows, dim=1)
    if outside == "zero":
        best = torch.where(_sees_everything(height, width, window, best.device), best, best.clamp(min=0))
    return best


def _block(query: Tensor, reference: Tensor, window: int, top: int, left: int) -> Tensor:
    """One block of :func:`_best_similarity`: ``(B, h, w)``, with h and w at most :data:`BLOCK`."""
    batch, height, width, depth = query.shape
    views = reference.shape[1]
    bottom, right = min(top + BLOCK, height), min(left + BLOCK, width)
    first_row, last_row = max(top - window, 0), min(bottom + window, height)
    first_column, last_column = max(left - window, 0), min(right + window, width)

    patches = query[:, top:bottom, left:right].reshape(batch, -1, depth)
    reach = reference[:, :, first_row:last_row, first_column:last_column].reshape(batch, -1, depth)
    similarity = torch.bmm(patches, reach.transpose(1, 2)).reshape(batch, patches.shape[1], views, -1)

    near_rows = _near(top, bottom, first_row, last_row, window, query.device)
    near_columns = _near(left, right, first_column, last_column, window, query.device)
    near = (near_rows[:, None, :, None] & near_columns[None, :, None, :]).flatten(2).flatten(0, 1)
    best: Tensor = similarity.masked_fill(~near[:, None, :], -torch.inf).amax(dim=(2, 3))
    return best.reshape(batch, bottom - top, right - left)


def _near(start: int, stop: int, first: int, last: int, window: int, device: torch.device) -> Tensor:
    """Whether places ``start..stop`` of the query and ``first..last`` of the reference are near enough."""
    here = torch.arange(start, stop, device=device)
    there = torch.arange(first, last, device=device)
    return (here[:, None] - there[None, :]).abs() <= window


def _sees_everything(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """``(H, W)``: patches whose window covers the whole grid, which therefore have no outside."""
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    all_rows = (rows <= window) & (height - 1 - rows <= window)
    all_columns = (columns <= window) & (width - 1 - columns <= window)
    return all_rows[:, None] & all_columns[None, :]


def _check(
    query: Sequence[Tensor], reference: Sequence[Tensor], window: int, outside: str, fuse: str
) -> None:
    if not query or len(query) != len(reference):
        raise ValueError(
            f"{len(query)} query and {len(reference)} reference layers; give one of each a layer"
        )
    for q, r in zip(query, reference, strict=True):
        wanted = (q.shape[0], *q.shape[1:])
        found = (r.shape[0], *r.shape[2:])
        if q.ndim != 4 or r.ndim != 5 or wanted != found or r.shape[1] == 0:
            raise ValueError(
                f"query layers are (B, H, W, D) and reference layers (B, R, H, W, D) with R >= 1, "
                f"not {tuple(q.shape)} and {tuple(r.shape)}"
            )
    if window < 0:
        raise ValueError(f"window is {window}; it must be 0 or more patches")
    if outside not in get_args(Outside):
        raise ValueError(f"outside is {outside!r}; it must be one of {', '.join(get_args(Outside))}")
    if fuse not in get_args(Fuse):
        raise ValueError(f"fuse is {fuse!r}; it must be one of {', '.join(get_args(Fuse))}")
