"""Image data sets of torchvision, downloaded into a cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ffn_bench.configuration.schema import (
    DataConfig,
    TorchvisionConfig,
)
from ffn_bench.configuration.validation import other_keys
from ffn_bench.data.files import expanded
from ffn_bench.data.rows import Raw, Rows
from ffn_bench.errors import UserError, data_error

# --- torchvision ----------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where downloads are kept when `data.root` is not given."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ffn-bench"


def load_torchvision(config: DataConfig) -> Raw:
    """MNIST, Fashion-MNIST, KMNIST or CIFAR-10: pixels in [0, 1]; downloaded only where files are missing."""
    if not isinstance(config, TorchvisionConfig):
        raise other_keys(config.name)
    from torchvision import datasets  # registers operators with torch: 1 s, and it must be of torch's build

    kinds = {
        "mnist": datasets.MNIST,
        "fashion_mnist": datasets.FashionMNIST,
        "kmnist": datasets.KMNIST,
        "cifar10": datasets.CIFAR10,
    }
    kind = kinds[config.name]
    root = expanded(config.root, "data.root") if config.root else cache_folder()
    try:
        splits = [kind(root, train=train, download=False) for train in (True, False)]
    except RuntimeError as missing:
        if not config.download:
            raise _missing_files(kind, root, "and data.download is false") from missing
        _download(kind, root)
        splits = [kind(root, train=train, download=False) for train in (True, False)]
    except (OSError, ValueError, AssertionError, EOFError) as e:
        raise data_error(
            str(root), f"a file of {config.name} is damaged ({e})", "delete it and run again"
        ) from e
    (x, y), test = [(np.asarray(split.data), np.asarray(split.targets)) for split in splits]
    classes = tuple(str(k) for k in range(10)) if config.name == "mnist" else tuple(splits[0].classes)
    return Raw(
        x.reshape(len(x), -1),
        y,
        classes,
        test=Rows(test[0].reshape(len(test[0]), -1), test[1]),
        image_shape=x.shape[1:],
    )


def _download(kind: Any, root: Path) -> None:
    """Download into a temporary folder and copy it when complete: an interrupted download leaves no trace."""
    import shutil
    import socket
    import tempfile

    timeout, root_is_new = socket.getdefaulttimeout(), not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            socket.setdefaulttimeout(30)
            kind(folder, train=True, download=True)
            for subfolder in Path(folder).iterdir():
                shutil.copytree(subfolder, root / subfolder.name, dirs_exist_ok=True)
    except (OSError, RuntimeError) as e:
        raise _missing_files(kind, root, f"and the download failed ({str(e).splitlines()[0]})") from e
    finally:
        socket.setdefaulttimeout(timeout)
        if root_is_new and root.is_dir() and not any(root.iterdir()):
            root.rmdir()


def _missing_files(kind: Any, root: Path, why: str) -> UserError:
    if hasattr(kind, "resources"):
        folder = root / kind.__name__ / "raw"
        names = [name.removesuffix(".gz") for name, _ in kind.resources]
    else:
        folder, names = root / kind.base_folder, [name for name, _ in kind.train_list + kind.test_list]
    absent = [name for name in names if not (folder / name).exists()]
    return data_error("data.root", f"{folder} lacks {', '.join(absent)} {why}", f"put them in {folder}")
