"""Pictures of one run, as PNG bytes for TensorBoard.

Drawn with Pillow: every run of a sweep leaves them, and a plotting library takes 0.1 s for each.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ffn_bench.data.splitting import Array, Data
from ffn_bench.errors import short

DRAWING = threading.Lock()
"""To be held while drawing: fonts are shared, and their library wants one thread at a time."""

BLUES = np.array([[247, 251, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]])
"""Light to dark at equal distances (ColorBrewer's Blues): safe for the colour-blind and on paper."""
INK, PALE = (0, 0, 0), (255, 255, 255)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: classes may be called anything."""
    package = importlib.util.find_spec("matplotlib")  # importing it takes 0.15 s
    assert package is not None and package.submodule_search_locations
    fonts = Path(package.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _width(text: str, size: int) -> int:
    return round(_font(size).getlength(text))


def _write_upwards(
    image: Image.Image, at: tuple[int, int], text: str, size: int, ends_at_point: bool = False
) -> None:
    """Text turned by 90°, its middle (or its end) at the point, reading upwards."""
    label = Image.new("RGB", (_width(text, size) + 2, size + 6), PALE)
    ImageDraw.Draw(label).text((1, 1), text, fill=INK, font=_font(size))
    label = label.rotate(90, expand=True)
    y = at[1] if ends_at_point else at[1] - label.height // 2
    image.paste(label, (at[0] - label.width // 2, y))


def confusion_matrix(counts: Array, classes: Sequence[str], split: str) -> bytes:
    """Counts `[true, predicted]`, shaded by the proportion of the true class."""
    proportion = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [short(name, 12) for name in classes]
    few = len(classes) <= 30
    longest = max(_width(name, 13) for name in names) if few else 0
    turned = longest > 30
    cell = max(3, min(40, 900 // len(classes)))
    side = cell * len(classes)
    accuracy = np.trace(counts) / max(1, counts.sum())
    title = f"{split} part: {accuracy:.1%} correct"
    left, top = 44 + longest, 40
    width = max(left + side, left + _width(title, 15)) + 20
    image = Image.new("RGB", (width, top + side + 44 + (longest if turned else 14 * few)), PALE)
    draw = ImageDraw.Draw(image)

    anchors = np.linspace(0, 1, len(BLUES))
    colours = (
        np.stack([np.interp(proportion, anchors, BLUES[:, k]) for k in range(3)], 2).round().astype(np.uint8)
    )
    shades = Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)
    image.paste(shades, (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=(120, 120, 120))
    middle = left + side // 2
    draw.text((middle, top - 14), title, fill=INK, font=_font(15), anchor="mm")
    if few:
        for k, name in enumerate(names):
            at = k * cell + cell // 2
            draw.text((left - 8, top + at), name, fill=INK, font=_font(13), anchor="rm")
            if turned:
                _write_upwards(image, (left + at, top + side + 8), name, 13, ends_at_point=True)
            else:
                draw.text((left + at, top + side + 8), name, fill=INK, font=_font(13), anchor="mt")
        for row, column in np.argwhere(counts > 0):
            ink = PALE if proportion[row, column] > 0.5 else INK
            text, size = str(counts[row, column]), 12 if counts[row, column] < 10_000 else 10
            centre = (left + column * cell + cell // 2, top + row * cell + cell // 2)
            draw.text(centre, text, fill=ink, font=_font(size), anchor="mm")
    draw.text((middle, image.height - 18), "predicted class", fill=INK, font=_font(14), anchor="mm")
    _write_upwards(image, (18, top + side // 2), "true class", 14)
    return _png(image)


def mistakes(data: Data[Array], rows: Array, predicted: Array, losses: Array) -> bytes:
    """A grid of misclassified pictures of the test part, worst first, with true → predicted class."""
    assert data.image_shape is not None
    title = "largest losses of the test part: true → predicted (nats)"
    columns = min(6, len(rows))
    lines = -(-len(rows) // columns)
    labels = [
        f"{short(data.classes[int(data.test.y[row])], 12)} → {short(data.classes[int(guess)], 12)} "
        f"({float(loss):.1f})"
        for row, guess, loss in zip(rows, predicted, losses, strict=True)
    ]
    side = 96
    step = max(side, *(_width(label, 13) for label in labels)) + 20
    width = max(columns * step, _width(title, 15)) + 20
    colours = "RGB" if len(data.image_shape) == 3 else "L"
    image = Image.new(colours, (width, 40 + lines * (side + 34)), "white")
    draw = ImageDraw.Draw(image)
    draw.text((width // 2, 20), title, fill="black", font=_font(15), anchor="mm")
    pixels = data.test.x[rows].astype(np.float64) * data.std + data.mean
    for k, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        low, high = picture.min(), picture.max()
        shade = (picture.reshape(data.image_shape) - low) / max(high - low, 1e-9)
        # Digits are dark on white, as on paper; photographs keep their colours.
        grey = shade if shade.ndim == 3 else 1 - shade
        small = Image.fromarray((grey * 255).round().astype(np.uint8))
        middle = 10 + (k % columns) * step + step // 2
        top = 40 + (k // columns) * (side + 34)
        draw.text((middle, top + 8), label, fill="black", font=_font(13), anchor="mm")
        image.paste(small.resize((side, side), Image.Resampling.NEAREST), (middle - side // 2, top + 20))
    return _png(image)
