"""What a training looks like from outside: planted markers among the best genes, epoch by epoch; seconds and memory."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from sklearn.metrics import average_precision_score

from selectormlp.files import _write_table

KEPT = (50, 100, 200, 400)  # genes that are kept, the others set to 0
SAMPLE = 5000  # validation cells at most that the masked network is judged on


class Watch(pl.Callback):
    """Writes a row every `every` epochs: how well |w|, or sum |W1| of a plain MLP, finds the planted markers.

    `x` (cells, genes) and `codes` (cells,) are validation cells, `is_marker` (genes,) the truth. A training that goes
    on from a checkpoint goes on with the table at `path`, too.
    """

    def __init__(self, path: Path, x: Any, codes: np.ndarray, is_marker: np.ndarray, *, every: int = 5):
        chosen = np.linspace(0, len(codes) - 1, min(SAMPLE, len(codes))).astype(int)
        self.path, self.is_marker, self.every = path, is_marker, every
        self.x = torch.from_numpy(x[chosen].toarray().astype(np.float32))
        self.codes = torch.from_numpy(codes[chosen])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the network of this epoch, and add a row to the table."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every and epoch != trainer.max_epochs:
            return
        network = pl_module.network
        row = {"epoch": epoch, "step": trainer.global_step, **self.judged(network)}
        before = pd.read_csv(self.path) if self.path.exists() else pd.DataFrame(columns=list(row))
        _write_table(pd.DataFrame([*before[before["epoch"] < epoch].to_dict("records"), row]), self.path)

    @torch.no_grad()
    def judged(self, network: Any) -> dict[str, float]:
        """Average precision of the markers, markers in the best 200, and accuracy with the best genes alone."""
        network.eval()
        selector = network.selector
        importance = network.first.weight.abs().sum(dim=0) if selector is None else selector.gene_weights().abs()
        order = importance.argsort(descending=True, stable=True)
        row: dict[str, float] = {
            "average_precision": average_precision_score(self.is_marker, importance.numpy()),
            "markers_in_top_200": int(self.is_marker[order[:200].numpy()].sum()),
        }
        for size in (*KEPT, len(order)):
            kept = torch.zeros(len(order))
            kept[order[:size]] = 1
            right = network(self.x * kept).argmax(dim=1) == self.codes
            row["kept_all" if size == len(order) else f"kept_{size}"] = float(right.double().mean())
        return row


class PartLog:
    """Seconds and peak memory of each part of a long run, in the table at `path`, noted while a part still runs.

    A run that is killed and goes on has a row for each time that a part was worked on.
    """

    columns = ("part", "began", "seconds", "processor_seconds", "peak_memory_mb", "done")

    def __init__(self, path: Path, *, every: float = 30.0):
        self.path, self.every = path, every
        self.rows = pd.read_csv(path).to_dict("records") if path.exists() else []

    def done(self, part: str) -> bool:
        """Whether a part was brought to its end, now or before."""
        return any(row["part"] == part and row["done"] for row in self.rows)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure what is done inside."""
        row = {"part": name, "began": time.strftime("%Y-%m-%d %H:%M:%S"), "done": False}
        began, used, over = time.perf_counter(), time.process_time(), threading.Event()
        _forget_peak()
        self.rows.append(row)

        def note() -> None:
            row.update(
                seconds=round(time.perf_counter() - began, 1),
                processor_seconds=round(time.process_time() - used, 1),
                peak_memory_mb=round(_peak()),
            )
            _write_table(pd.DataFrame(self.rows, columns=list(self.columns)), self.path)

        def keep_noting() -> None:
            while not over.wait(self.every):
                note()

        noting = threading.Thread(target=keep_noting, daemon=True)
        noting.start()
        try:
            yield
            row["done"] = True
        finally:
            over.set()
            noting.join()
            note()


def _forget_peak() -> None:
    """Have Linux start the peak of this process's memory anew."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Peak memory of this process in MB: since `_forget_peak` on Linux, else since it began."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
