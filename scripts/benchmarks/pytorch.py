"""PyTorch's own programs: the lecture's loop, a fused eager step, Lightning. Nothing of it is ours."""

from __future__ import annotations

import logging
import time
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.work import Epoch, Work

THREADS = torch.get_num_threads()
"""As PyTorch sets them by itself."""


def _network(work: Work) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in work.layers:
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _tensors(work: Work) -> tuple[Tensor, Tensor]:
    x, y = work.data()
    return torch.from_numpy(x), torch.from_numpy(y)


def lecture_loop(work: Work, where: str = "cpu") -> Epoch:
    """The lecture's program: nn.Linear, a shuffling DataLoader, default Adam."""
    net = _network(work).to(where)
    loader = DataLoader(TensorDataset(*_tensors(work)), batch_size=work.batch_size, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    loss_function = nn.CrossEntropyLoss()

    def epoch() -> tuple[int, float]:
        torch.set_num_threads(THREADS)
        start = time.perf_counter()
        for inputs, labels in loader:
            inputs, labels = inputs.to(where).float(), labels.to(where).long()
            loss = loss_function(net(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if where == "cuda":
            torch.cuda.synchronize()
        return len(loader), time.perf_counter() - start

    return epoch


def fused(work: Work, threads: int) -> Epoch:
    """The fastest eager step: slices of shuffled tensors, no DataLoader, fused Adam, no logging."""
    net, (x, y) = _network(work), _tensors(work)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005, fused=True)
    b, epochs = work.batch_size, 0

    def epoch() -> tuple[int, float]:
        nonlocal epochs
        epochs += 1
        torch.set_num_threads(threads)
        start = time.perf_counter()
        order = work.order(0, epochs)
        shuffled_x, shuffled_y = (x, y) if order is None else (x[order], y[order])
        for inputs, labels in zip(shuffled_x.split(b), shuffled_y.split(b), strict=True):
            loss = F.cross_entropy(net(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return work.steps, time.perf_counter() - start

    return epoch


def lightning_trainer(work: Work) -> Epoch:
    """Lightning's Trainer with logging, checkpoints and the progress bar off; its start-up is not counted."""
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = _network(work)

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.005)

        def on_train_epoch_start(self) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            self.seconds = time.perf_counter() - self.started

    module = Module()
    loader = DataLoader(TensorDataset(*_tensors(work)), batch_size=work.batch_size, shuffle=True)

    def epoch() -> tuple[int, float]:
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", devices=1, **dict.fromkeys(off, False))
        trainer.fit(module, loader)
        return len(loader), module.seconds

    return epoch
