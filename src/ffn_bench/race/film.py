"""The film of a race: its contour figure with growing paths, as a GIF and an MP4."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from ffn_bench import process
from ffn_bench.errors import printable
from ffn_bench.plot_style import GRID, INK, PAPER, SERIES, STYLE
from ffn_bench.race.figures import LINES, RAMP, contour_figure
from ffn_bench.race.scene import Scene

FRAMES = 100
FRAME_MS, LAST_MS = 60, 3000


def frames(scene: Scene, on_progress: Callable[[int], object] = lambda n: None) -> Iterator[Image.Image]:
    """The contour figure with growing paths, 1200 × 676. Only what moves is redrawn."""
    with mpl.rc_context(STYLE):
        picture = contour_figure(scene)
        figure = picture.figure
        figure.set_dpi(100)
        figure.set_size_inches(12.0, 6.76)  # H.264 needs even numbers of pixels
        canvas: Any = FigureCanvasAgg(figure)
        moving = [*picture.paths, *picture.curves, *picture.ends, *picture.heads]
        for line in moving:
            line.set_visible(False)
        canvas.draw()
        ground = canvas.copy_from_bbox(figure.bbox)
        for line in moving:
            line.set_visible(True)
        for number, step in enumerate(moments(scene), 1):
            canvas.restore_region(ground)
            for k, track in enumerate(scene.tracks):
                n = int(np.searchsorted(track.steps, step, side="right"))
                xy, steps, values = picture.drawn[k][:n], track.steps[:n], picture.values[k][:n]
                picture.paths[k].set_data(xy[:, 0], xy[:, 1])
                picture.heads[k].set_data(xy[-1:, 0], xy[-1:, 1])
                picture.curves[k].set_data(steps, values)
                picture.ends[k].set_data(steps[-1:], values[-1:])
            for line in moving:
                assert line.axes is not None
                line.axes.draw_artist(line)
            on_progress(number)
            yield Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def moments(scene: Scene) -> list[int]:
    """The steps that a film shows."""
    return sorted({round(t) for t in np.linspace(0, scene.last, min(scene.last, FRAMES) + 1)})


def _palette() -> Image.Image:
    """The colours of a GIF: the ground's, greys, every series' in steps towards the ground, for smooth edges.

    A palette computed from a frame would spend most of its colours on the background.
    """
    ramp = RAMP(np.linspace(0, 1, 32))[:, :3]
    greys = np.outer(np.linspace(0.08, 1, 40), np.ones(3))
    lines = [np.asarray(to_rgb(LINES)) * (1 - w) + ramp[k] * w for w in (0, 0.4) for k in (0, 10, 20)]
    blends = [
        np.asarray(to_rgb(c)) * (1 - w) + np.asarray(to_rgb(ground)) * w
        for c in SERIES for ground in ("#c9d5e1", PAPER) for w in (0, 0.2, 0.4, 0.6, 0.8)
    ]  # fmt: skip
    colours = np.concatenate([ramp, greys, lines, blends, [to_rgb(INK), to_rgb(PAPER), to_rgb(GRID)]])[:256]
    image = Image.new("P", (1, 1))
    image.putpalette(np.round(255 * colours).astype(np.uint8).tobytes())
    return image


def gif(frames: list[Image.Image], command: str) -> bytes:
    """The film as a GIF that repeats, with the command that made it as its comment."""
    palette = _palette()  # without dithering, what does not move stays the same
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    indexed[0].save(
        buffer, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0,
        comment=printable(command),
        optimize=False,
    )  # fmt: skip
    return buffer.getvalue()


@process.tidies
def mp4(frames: list[Image.Image], command: str) -> bytes | None:
    """The film as an MP4 (H.264) by ffmpeg; None where ffmpeg is missing or fails."""
    program, command = shutil.which("ffmpeg"), printable(command)
    if program is None:
        return None
    width, height = frames[0].size
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "race.mp4"
        arguments = [
            program, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
            "-r", f"{1000 / FRAME_MS:.3f}", "-i", "-", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20",
            "-pix_fmt", "yuv420p", "-metadata", f"comment={command}", "-movflags", "+faststart", str(file),
        ]  # fmt: skip
        still = [frames[-1]] * (LAST_MS // FRAME_MS)
        raw = b"".join(frame.tobytes() for frame in (*frames, *still))
        done = subprocess.run(arguments, input=raw, check=False, capture_output=True)
        return file.read_bytes() if done.returncode == 0 and file.exists() else None
