"""The 3x3 grid that defect localization asks about (paper, "Task Construction")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: What the nine cells are called, row by row.
PLACES = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip


def cell_counts(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Mask pixels in each of the nine cells, row by row.

    Sides are divided by integer division; the last row and column take the remainder, as the released code
    does.

    Args:
        mask: (height, width), true where the defect is.

    >>> import numpy as np
    >>> cell_counts(np.eye(7, dtype=bool))
    (2, 0, 0, 0, 2, 0, 0, 0, 3)
    """
    import numpy as np

    height, width = mask.shape
    rows = [0, height // 3, 2 * (height // 3), height]
    columns = [0, width // 3, 2 * (width // 3), width]
    return tuple(
        int(np.count_nonzero(mask[rows[r] : rows[r + 1], columns[c] : columns[c + 1]]))
        for r in range(3)
        for c in range(3)
    )


def touched_cells(counts: Sequence[int]) -> tuple[int, ...]:
    """Cells that hold mask pixels, the fullest first; of equals, the first in reading order.

    >>> touched_cells((0, 5, 0, 0, 9, 0, 0, 5, 0))
    (4, 1, 7)
    """
    return tuple(sorted((cell for cell in range(9) if counts[cell]), key=lambda cell: (-counts[cell], cell)))
