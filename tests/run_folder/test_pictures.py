"""The confusion matrix, as Pillow reads and would have drawn it."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from command_line.test_surroundings import NASTY
from ffn_bench.run_folder import pictures

LONG = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]


def counts_of(n_classes: int, per_class: int, correct: float = 0.8) -> npt.NDArray[np.int64]:
    """A matrix whose classes have one example more each than the one before."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(n_classes), per_class + np.arange(n_classes))
    predicted = np.where(rng.random(len(y)) < correct, y, rng.integers(0, n_classes, len(y)))
    return np.bincount(y * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def pixels_of(png: bytes) -> npt.NDArray[np.int16]:
    """Red, green and blue `[height, width, 3]`."""
    image = Image.open(io.BytesIO(png))
    image.verify()  # the checksums of its chunks
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int16)


def box_of(pixels: npt.NDArray[np.int16]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is within the outline of the cells."""
    outline = (pixels == 119).all(2)  # the grey of the palette that is nearest to half
    rows = np.flatnonzero(outline.mean(1) > 0.2)
    columns = np.flatnonzero(outline.mean(0) > 0.2)
    return int(columns[0]) + 1, int(rows[0]) + 1, int(columns[-1]), int(rows[-1])


def shades(proportion: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The colours of cells `[…, 3]`: ColorBrewer's Blues, linear in between."""
    anchors = np.linspace(0, 1, len(pictures.BLUES))
    return np.stack([np.interp(proportion, anchors, pictures.BLUES[:, k]) for k in range(3)], -1)


@pytest.mark.parametrize(
    ("n_classes", "per_class", "cell"),
    [
        (2, 100, 40), (3, 2_000_000, 40), (10, 27, 40), (10, 6000, 40), (30, 200, 30), (31, 50, 29),
        (100, 30, 9), (1000, 2, 3),
    ],
)  # fmt: skip
def test_cells_are_shaded_by_proportion(n_classes: int, per_class: int, cell: int) -> None:
    counts = counts_of(n_classes, per_class)
    png = pictures.confusion_matrix(counts, [str(k) for k in range(n_classes)], "test")
    pixels = pixels_of(png)
    left, top, right, bottom = box_of(pixels)
    assert (right - left, bottom - top) == (cell * n_classes, cell * n_classes)
    proportion = counts / counts.sum(1, keepdims=True)
    corners = pixels[top:bottom:cell, left:right:cell]
    # Half a shade of 40: a quarter of the way from 0 to 1, a colour changes by 91 at most.
    assert np.abs(corners - shades(proportion)).max() <= 4 * 91 / 39 / 2 + 1
    assert (corners[counts == 0] == pictures.BLUES[0]).all()


@pytest.mark.parametrize(("n_classes", "per_class"), [(2, 40), (10, 27), (10, 6000), (30, 200)])
def test_counts_are_as_pillow_draws_them(n_classes: int, per_class: int) -> None:
    counts = counts_of(n_classes, per_class)
    pixels = pixels_of(pictures.confusion_matrix(counts, [str(k) for k in range(n_classes)], "val"))
    left, top, right, _ = box_of(pixels)
    cell = (right - left) // n_classes
    for row, column in np.ndindex(n_classes, n_classes):
        area = pixels[top + row * cell :, left + column * cell :][:cell, :cell]
        drawn = Image.new("RGB", (cell, cell), tuple(map(int, area[0, 0])))
        dark = counts[row, column] > 0.6 * counts[row].sum()
        if count := counts[row, column]:
            ink, font = ("white" if dark else "black"), pictures._font(12)
            ImageDraw.Draw(drawn).text((cell // 2, cell // 2), str(count), fill=ink, font=font, anchor="mm")
        # A fifth of the way to the ink is the smallest step there is, so half of it may be missing.
        assert np.abs(area - np.asarray(drawn)).max() <= 255 / 5 / 2 + 9, (row, column, count)


@pytest.mark.parametrize(
    "classes",
    [
        ["a", "b"],
        LONG,
        [str(k) for k in range(30)],
        ["" for _ in range(4)],
        list(NASTY)[:30],
        ["W" * 500] * 30,
    ],
    ids=["two", "long", "thirty", "empty", "nasty", "wide"],
)
@pytest.mark.parametrize("per_class", [0, 1, 90_000_000])
def test_nothing_is_cut_off(classes: list[str], per_class: int) -> None:
    """The margin is white all around, however narrow the matrix and however long what stands beside it."""
    counts = np.diag(np.full(len(classes), per_class))
    pixels = pixels_of(pictures.confusion_matrix(counts, classes, "train"))
    edges = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
    assert all((edge == 255).all() for edge in edges)
    left, top, right, bottom = box_of(pixels)
    around = np.concatenate(
        [pixels[top:bottom, left - 6 : left - 1], pixels[top:bottom, right + 1 : right + 6]], 1
    )
    assert (around == 255).all()
    assert pixels[: top - 2].min() < 60 and pixels[bottom + 2 :].min() < 60  # title, and name of the axis


def test_a_large_number_stays_in_its_cell() -> None:
    counts = np.zeros((30, 30), np.int64)
    counts[3, 3], counts[3, 4] = 10**12, 1
    pixels = pixels_of(pictures.confusion_matrix(counts, [str(k) for k in range(30)], "test"))
    left, top, *_ = box_of(pixels)
    beside = pixels[top + 3 * 30 : top + 4 * 30, left + 2 * 30 : left + 3 * 30]
    assert (beside == pictures.BLUES[0]).all()


def test_two_runs_share_what_is_drawn_once_and_nothing_else() -> None:
    classes = [str(k) for k in range(10)]
    first, second = counts_of(10, 20), counts_of(10, 40)
    alone = pictures.confusion_matrix(first, classes, "test")
    other = pictures.confusion_matrix(second, classes, "val")
    assert other != alone == pictures.confusion_matrix(first, classes, "test")


def test_what_is_kept_between_pictures_is_bounded() -> None:
    """Frames of a few classes, at most a megabyte each; texts and counts of a kilobyte or two."""
    for k in range(9):
        pictures.confusion_matrix(np.eye(2, dtype=np.int64), [f"{k}", "other"], "test")
    names = [f"class {n}" for n in range(30)]
    for first in (0, 900):
        pictures.confusion_matrix(first + np.arange(900).reshape(30, 30), names, "test")
    assert pictures._named_frame(tuple(names)).pixels.nbytes < 2**20 * 1.1
    for cache, most in ((pictures._named_frame, 8), (pictures._count, 1024), (pictures._text, 256)):
        info = cache.cache_info()
        assert info.maxsize == most >= info.currsize


@pytest.mark.parametrize("classes", [["a", "b", "c", "d"], LONG])
def test_axes_are_named_at_their_middle(classes: list[str]) -> None:
    pixels = pixels_of(pictures.confusion_matrix(np.eye(len(classes), dtype=np.int64), classes, "test"))
    left, top, right, bottom = box_of(pixels)
    rows = np.flatnonzero((pixels[:, :30] < 128).any((1, 2)))
    columns = np.flatnonzero((pixels[-28:] < 128).any((0, 2)))
    assert abs((rows[0] + rows[-1]) / 2 - (top + bottom) / 2) <= 2
    assert abs((columns[0] + columns[-1]) / 2 - (left + right) / 2) <= 2
    assert np.ptp(rows) == pytest.approx(pictures._width("true class", 14), abs=4)
    assert np.ptp(columns) == pytest.approx(pictures._width("predicted class", 14), abs=4)
