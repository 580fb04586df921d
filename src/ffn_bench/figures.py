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
    names = [name if len(name) <= 12 else name[:11] + "…" for name in classes]
    margin = 0.75 + 0.085 * max(map(len, names))  # inches; placed by hand, as a layout engine takes 0.2 s
    side = min(9.0, max(2.6, 0.4 * len(classes)))
    width, height = margin + side + 0.2, margin + side + 0.45
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    accuracy = np.trace(table) / max(1, table.sum())
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{part} part: {accuracy:.1%} right", fontsize=11)
    if len(classes) <= 30:
        turned = max(map(len, names)) > 3
        axes.set_xticks(range(len(names)), names, rotation=90 if turned else 0)
        axes.set_yticks(range(len(names)), names)
        for row, column in np.argwhere(table > 0):
            ink = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(table[row, column]), ha="center", va="center", color=ink, fontsize=8)
    return _png(figure)


def mistakes(data: Data, rows: Tensor, predicted: Tensor, losses: Tensor) -> bytes:
    """A grid of misclassified pictures of the test part, worst first, with true → predicted class."""
    from matplotlib.figure import Figure

    assert data.image_shape is not None
    columns = min(6, len(rows))
    lines = -(-len(rows) // columns)
    height, width = data.image_shape[:2]
    gap_x, gap_y = max(1, round(width * 0.25)), max(2, round(height * 0.45))
    mosaic = np.ones((lines * (height + gap_y), columns * (width + gap_x), *data.image_shape[2:]))
    figure = Figure(figsize=(1.25 * columns, 1.25 * columns * mosaic.shape[0] / mosaic.shape[1] + 0.4))
    axes = figure.add_axes((0.01, 0.01, 0.98, 1 - 0.4 / figure.get_figheight()))
    axes.axis("off")
    pixels = (data.test.x[rows].cpu().double() * data.std + data.mean).numpy()
    for k, (image, row, guess, loss) in enumerate(zip(pixels, rows, predicted, losses, strict=True)):
        low, high = image.min(), image.max()
        shade = (image.reshape(data.image_shape) - low) / max(high - low, 1e-9)
        top, left = (k // columns) * (height + gap_y) + gap_y, (k % columns) * (width + gap_x) + gap_x // 2
        # Digits are dark on white, as on paper; photographs keep their colours.
        mosaic[top : top + height, left : left + width] = shade if shade.ndim == 3 else 1 - shade
        label = f"{data.classes[int(data.test.y[row])]} → {data.classes[int(guess)]} ({float(loss):.1f})"
        axes.text(left + width / 2, top - gap_y * 0.15, label, ha="center", va="bottom", fontsize=9.5)
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    figure.suptitle("largest losses of the test part: true → predicted (nats)", fontsize=11)
    return _png(figure)
