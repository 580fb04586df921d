"""Pictures of one run, as PNG bytes for TensorBoard.

Every run of a sweep leaves a confusion matrix, or its predictions, so one takes a millisecond: its pixels are
numbers of a palette, and what it shares with another run's, the axes and most counts, is drawn once for both.
Pillow is imported when the first text is drawn.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ffn_bench.data.rows import Array, Data
from ffn_bench.errors import short

if TYPE_CHECKING:
    from PIL import ImageFont

Pixels = npt.NDArray[np.uint8]

DRAWING = threading.Lock()
"""To be held while drawing: fonts are shared, and their library wants one thread at a time."""

# --- colours --------------------------------------------------------------------------------------------

BLUES = np.array([[247, 251, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]])
"""Light to dark at equal distances (ColorBrewer's Blues): safe for the colour-blind and on paper."""
GREYS = 16
"""The first colours of a palette: white to black, for what surrounds the cells. The others are shades of
blue, each first as it is, then with more and more of the ink of a number in it."""
SHADES, INKS = 40, 6
"""Shades of cells with numbers, and steps from the cell's colour to that of its number."""
PALE_INK = 0.6
"""Proportion from which on numbers are white on dark: black has less contrast there."""


@functools.cache
def _palette(shades: int, inks: int) -> bytes:
    """Red, green and blue of 256 colours."""
    grey = np.repeat(np.linspace(255, 0, GREYS)[:, None], 3, axis=1)
    proportion = np.linspace(0, 1, shades)
    anchors = np.linspace(0, 1, len(BLUES))
    blue = np.stack([np.interp(proportion, anchors, channel) for channel in BLUES.T], 1)[:, None]
    ink = np.where(proportion > PALE_INK, 255, 0)[:, None, None]
    blends = blue + np.linspace(0, 1, inks)[:, None] * (ink - blue) if inks > 1 else blue
    return np.concatenate([grey, blends.reshape(-1, 3)]).round().astype(np.uint8).tobytes()


def _indexed_png(pixels: Pixels, palette: bytes) -> bytes:
    """A picture of numbers of a palette, `[height, width]`. Pillow, which tries what a picture might need,
    takes longer."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)))

    height, width = pixels.shape
    rows = np.full((height, width + 1), 2, np.uint8)  # a row begins with its filter: 2, less the row above
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])  # almost all 0, which repeats
    packed = zlib.compressobj(1, strategy=zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits a pixel, of a palette
    chunks = (
        chunk(b"IHDR", header),
        chunk(b"PLTE", palette),
        chunk(b"IDAT", packed.compress(rows.data) + packed.flush()),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# --- texts ----------------------------------------------------------------------------------------------


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: classes may be called anything."""
    from PIL import ImageFont

    package = importlib.util.find_spec("matplotlib")  # importing it takes 0.15 s
    assert package is not None and package.submodule_search_locations
    fonts = Path(package.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)


def _width(text: str, size: int) -> int:
    return round(_font(size).getlength(text))


@dataclass(frozen=True)
class _Text:
    """A text's coverage of pixels `[height, width]`, 0 … 255, of which `[0, 0]` is so far to the right of and
    below the point where the text is put."""

    coverage: Pixels
    right: int
    below: int

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.coverage.shape[1])

    def upwards(self) -> _Text:
        """The same, turned by 90° around its point, reading upwards."""
        return _Text(np.rot90(self.coverage), self.below, -self.right - self.width)

    def put(self, pixels: Pixels, x: int, y: int) -> None:
        """Draw it on white in greys, as far as it lies within the picture."""
        x, y = x + self.right, y + self.below
        height, width = pixels.shape
        rows, columns = (slice(max(0, -y), max(0, height - y)), slice(max(0, -x), max(0, width - x)))
        ink = np.rint(self.coverage[rows, columns] * ((GREYS - 1) / 255)).astype(np.uint8)
        area = pixels[max(0, y) :, max(0, x) :][: ink.shape[0], : ink.shape[1]]
        np.maximum(area, ink, out=area)


@functools.lru_cache(maxsize=256)
def _text(text: str, size: int, anchor: str) -> _Text:
    """A text of one line whose anchor (Pillow's: `mm` is its middle) is where it will be put."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = map(int, _font(size).getbbox(text, anchor=anchor))
    image = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=_font(size), anchor=anchor)
    return _Text(np.asarray(image), left, top)


# --- the confusion matrix -------------------------------------------------------------------------------

MOST_NAMED = 30
"""Classes at most whose names and counts are shown."""


@dataclass(frozen=True)
class _Frame:
    """What surrounds the cells: the picture without them `[height, width]`, and where they are."""

    pixels: Pixels
    cell: int
    left: int
    top: int
    title_middle: int


def _frame(n_classes: int, names: Sequence[str]) -> _Frame:
    """Axes, their names and those of the classes; the title is missing."""
    longest = max((_text(name, 13, "rm").width for name in names), default=0)
    turned = longest > 30
    cell = max(3, min(40, 900 // n_classes))
    side = cell * n_classes
    left, top = 44 + longest, 40
    middle = left + side // 2
    title = _text("train part: 100.0% correct", 15, "mm").width  # the widest there can be
    title_middle = max(middle, 10 + title // 2)
    width = max(left + side, title_middle + title // 2) + 20
    height = top + side + 44 + (longest if turned else 14 * bool(names))
    pixels = np.zeros((height, width), np.uint8)
    pixels[top - 1 : top + side + 1, left - 1 : left + side + 1] = GREYS // 2
    for k, name in enumerate(names):
        at = k * cell + cell // 2
        _text(name, 13, "rm").put(pixels, left - 8, top + at)
        if turned:
            _text(name, 13, "rm").upwards().put(pixels, left + at, top + side + 8)
        else:
            _text(name, 13, "ma").put(pixels, left + at, top + side + 6)
    _text("predicted class", 14, "mm").put(pixels, middle, height - 18)
    _text("true class", 14, "mm").upwards().put(pixels, 18, top + side // 2)
    return _Frame(pixels, cell, left, top, title_middle)


@functools.lru_cache(maxsize=8)
def _named_frame(classes: tuple[str, ...]) -> _Frame:
    """The frame of a few classes, a megabyte at most."""
    return _frame(len(classes), [short(name, 12) for name in classes])


@functools.lru_cache(maxsize=1024)
def _count(count: int, cell: int) -> Pixels:
    """The ink of a cell `[cell, cell]` with its count, in as large digits as there is room for; 0 is not
    written."""
    pixels = np.zeros((cell, cell), np.uint8)
    if count:
        size = next((size for size in (12, 10, 8) if _text(str(count), size, "mm").width < cell), 6)
        _text(str(count), size, "mm").put(pixels, cell // 2, cell // 2)
    ink: Pixels = np.rint(pixels * ((INKS - 1) / (GREYS - 1))).astype(np.uint8)
    return ink


def confusion_matrix(counts: Array, classes: Sequence[str], split: str) -> bytes:
    """Counts `[true, predicted]`, shaded by the proportion of the true class."""
    n_classes, named = len(classes), len(classes) <= MOST_NAMED
    frame = _named_frame(tuple(classes)) if named else _frame(n_classes, ())
    shades, inks = (SHADES, INKS) if named else (256 - GREYS, 1)
    proportion = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colours = (GREYS + inks * np.rint(proportion * (shades - 1))).astype(np.uint8)

    pixels, cell = frame.pixels.copy(), frame.cell
    side = cell * n_classes
    cells = pixels[frame.top : frame.top + side, frame.left : frame.left + side]
    if named:
        written = np.stack([_count(count, cell) for count in counts.ravel().tolist()])
        written += colours.reshape(-1, 1, 1)
        cells[:] = written.reshape(n_classes, n_classes, cell, cell).swapaxes(1, 2).reshape(side, side)
    else:
        cells[:] = colours.repeat(cell, axis=0).repeat(cell, axis=1)
    accuracy = np.trace(counts) / max(1, counts.sum())
    title = _text(f"{split} part: {accuracy:.1%} correct", 15, "mm")
    title.put(pixels, frame.title_middle, frame.top - 14)
    return _indexed_png(pixels, _palette(shades, inks))


# --- predictions of a regression ------------------------------------------------------------------------

MOST_PANELS, PANELS_A_ROW = 6, 3
"""Targets at most that are shown, and how many side by side."""
PANEL, DOT = 240, 3
"""A panel's side and a cell's, in pixels: its cells are counted, so that it takes as long for any number of
rows to be drawn."""
FAINTEST = 0.35
"""Shade of a cell with one row: white is none."""


def predictions(true: Array, predicted: Array, targets: Sequence[str], split: str) -> bytes:
    """Predicted against true targets `[n, n_targets]` in their own unit: a panel for each target with the
    line where they are equal, shaded by how many rows are in a cell."""
    shown = min(len(targets), MOST_PANELS)
    more = f", the first {shown} of {len(targets)} targets" if shown < len(targets) else ""
    title = _text(f"{split} part: predicted against true{more}", 15, "mm")
    columns = min(shown, PANELS_A_ROW)
    rows = -(-shown // columns)
    width_each, height_each, top = PANEL + 60, PANEL + 84, 40
    width = max(columns * width_each + 20, title.width + 20)
    pixels = np.zeros((top + rows * height_each, width), np.uint8)
    title.put(pixels, width // 2, 22)
    for k in range(shown):
        left, high = 50 + k % columns * width_each, top + 24 + k // columns * height_each
        _panel(pixels[high : high + PANEL, left : left + PANEL], true[:, k], predicted[:, k])
        around = pixels[high - 1 : high + PANEL + 1, left - 1 : left + PANEL + 1]
        for edge in (around[0], around[-1], around[:, 0], around[:, -1]):
            edge[:] = GREYS // 2
        low_end, high_end = _ends(true[:, k], predicted[:, k])
        _text(short(targets[k], 24), 14, "mm").put(pixels, left + PANEL // 2, high - 14)
        _text(f"{low_end:.4g}", 12, "la").put(pixels, left, high + PANEL + 5)
        _text(f"{high_end:.4g}", 12, "ra").put(pixels, left + PANEL, high + PANEL + 5)
        _text("true", 13, "mm").put(pixels, left + PANEL // 2, high + PANEL + 28)
        _text("predicted", 13, "mm").upwards().put(pixels, left - 16, high + PANEL // 2)
    return _indexed_png(pixels, _palette(256 - GREYS, 1))


def _ends(true: Array, predicted: Array) -> tuple[float, float]:
    """Of both axes: what is true and, up to as much beyond it, what is predicted."""
    low, high = float(true.min()), float(true.max())
    span = high - low or abs(low) or 1.0
    lowest, highest = float(predicted.min()), float(predicted.max())
    return max(min(lowest, low), low - span), min(max(highest, high), high + span)


def _panel(area: Pixels, true: Array, predicted: Array) -> None:
    """Draw cells and diagonal on white `[PANEL, PANEL]`; predictions beyond the axes are at their ends."""
    low, high = _ends(true, predicted)
    n = PANEL // DOT
    span = high - low or 1.0
    place = [np.clip((v - low) / span * n, 0, n - 1).astype(int) for v in (true, predicted)]
    counts = np.bincount((n - 1 - place[1]) * n + place[0], minlength=n * n).reshape(n, n)
    shade = FAINTEST + (1 - FAINTEST) * np.log1p(counts) / max(np.log1p(counts.max()), 1.0)
    cells = np.where(counts > 0, GREYS + np.rint(shade * (255 - GREYS)), 0).astype(np.uint8)
    area[:] = cells.repeat(DOT, axis=0).repeat(DOT, axis=1)
    k = np.arange(PANEL)
    free = area[PANEL - 1 - k, k] == 0
    area[(PANEL - 1 - k)[free], k[free]] = GREYS // 2


# --- the worst mistakes ---------------------------------------------------------------------------------


def mistakes(data: Data[Array], rows: Array, predicted: Array, losses: Array) -> bytes:
    """A grid of misclassified pictures of the test part, worst first, with true → predicted class."""
    from PIL import Image, ImageDraw

    assert data.image_shape is not None
    title = "largest losses of the test part: true → predicted (loss)"
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
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
