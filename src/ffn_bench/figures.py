"""Pictures of one run, as PNG bytes for TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ffn_bench.data import Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def confusion_matrix(counts: Tensor, classes: Sequence[str], part: str) -> bytes:
    """Counts `[true, predicted]`, shaded by the share of the true class."""
    from matplotlib.figure import Figure

    table = counts.numpy()
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = min(12.0, 2.4 + 0.42 * len(classes))
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    accuracy = np.trace(table) / max(1, table.sum())
    axes.set(xlabel="predicted class", ylabel="true class", title=f"{part} part, accuracy {accuracy:.1%}")
    if len(classes) <= 30:
        names = [name if len(name) <= 12 else name[:11] + "…" for name in classes]
        turned = max(len(name) for name in names) > 3
        axes.set_xticks(range(len(names)), names, rotation=45 if turned else 0, ha="right" if turned else "center")
        axes.set_yticks(range(len(names)), names)
        for row, column in np.argwhere(table > 0):
            ink = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(table[row, column]), ha="center", va="center", color=ink, fontsize=8)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return _png(figure)


def mistakes(data: Data, rows: Tensor, predicted: Tensor, losses: Tensor) -> bytes:
    """A grid of misclassified pictures of the test part, worst first, with true → predicted class."""
    from matplotlib.figure import Figure

    assert data.image_shape is not None
    columns = 6
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(columns * 1.35, lines * 1.7 + 0.3), layout="constrained")
    figure.suptitle("largest losses of the test part: true → predicted (loss in nats)", fontsize=10)
    grid = np.atleast_1d(figure.subplots(lines, columns)).reshape(-1)
    pixels = data.test.x[rows].cpu().double() * data.std + data.mean
    for axes in grid:
        axes.axis("off")
    for axes, image, row, guess, loss in zip(grid, pixels, rows, predicted, losses, strict=False):
        picture = image.numpy().reshape(data.image_shape)
        low, high = picture.min(), picture.max()
        axes.imshow((picture - low) / max(high - low, 1e-9), cmap="gray_r", interpolation="nearest")
        true = data.classes[int(data.test.y[row])]
        axes.set_title(f"{true} → {data.classes[int(guess)]}\n({float(loss):.1f})", fontsize=9)
    return _png(figure)
