"""Ctrl-C: a fit leaves a usable model of the best epoch so far, the key stays alive, and a whole run stops."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from selectormlp import SelectorMLPClassifier
from selectormlp.data import normalise
from selectormlp.models import NetworkShape, SelectorNet
from selectormlp.saving import load_model, save_model
from selectormlp.simulation import simulate_cells
from selectormlp.training import _REPORT, _ROBUST, TrainingStopped, _CodedCells, train_network


def listen() -> None:
    """Take Ctrl-C as a terminal has it: a shell's background jobs begin deaf to it, and so do their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    listen()
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def cells() -> tuple:
    adata = normalise(simulate_cells(n_cells=300, n_genes=60, n_types=3, seed=0))
    return adata.X, adata.obs["cell_type"].to_numpy().astype(str)


class CtrlC(pl.Callback):
    """Presses Ctrl-C in the middle of an epoch (1, 2, ...), for real or by raising what it raises."""

    def __init__(self, epoch: int, *, real: bool = True) -> None:
        self.epoch, self.real = epoch, real

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if trainer.current_epoch + 1 == self.epoch and batch_idx == 1:
            if not self.real:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)


def taught(cells: tuple, protocol, *callbacks: pl.Callback) -> tuple[SelectorNet, dict]:
    """A network and what is needed to teach it."""
    X, y = cells
    part = _CodedCells(X, np.unique(y, return_inverse=True)[1], np.ones(len(y), dtype=np.float32))
    torch.manual_seed(0)
    network = SelectorNet(NetworkShape(n_genes=60, n_types=3, hidden_sizes=(8,), start=protocol.selector_start))
    more = {"trainer_arguments": {"callbacks": list(callbacks)}, "penalty": "l1"}
    return network, {"train": part, "validation": part, "protocol": protocol, **more}


WATCHED = replace(_ROBUST, max_epochs=6, steps_per_epoch=4, unwatched_share=0.0, patience=6)


@pytest.mark.parametrize("real", [True, False])
def test_the_best_weights_so_far_are_kept(real: bool, cells) -> None:
    network, arguments = taught(cells, WATCHED, CtrlC(5, real=real))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingStopped, match=r"after 4 of 6 epochs; the weights are those of epoch \d") as stop:
        train_network(network, **arguments)
    result = stop.value.result
    assert result.history["epoch"].tolist() == [1, 2, 3, 4] and not network.training
    best = result.history["validation_balanced_accuracy"][::-1].idxmax() + 1  # the last of equals
    assert result.best_epoch == best
    best_so_far, arguments = taught(cells, WATCHED)
    arguments["trainer_arguments"] = {"max_epochs": best}
    train_network(best_so_far, **arguments)
    expected = best_so_far.state_dict()
    assert all((value == expected[name]).all() for name, value in network.state_dict().items())
    assert signal.getsignal(signal.SIGINT) is before, "Ctrl-C would do nothing from now on"


def test_where_no_epoch_is_kept_the_weights_are_those_of_the_moment(cells) -> None:
    network, arguments = taught(cells, replace(_REPORT, max_epochs=3, batch_size=64), CtrlC(3))
    with pytest.raises(TrainingStopped, match="stopped after 2 of 3 epochs; the weights are those of epoch 2"):
        train_network(network, **arguments)
    network, arguments = taught(cells, WATCHED, CtrlC(1))
    with pytest.raises(TrainingStopped, match="stopped after 0 of 6 epochs") as stop:
        train_network(network, **arguments)
    assert stop.value.result.history.empty and stop.value.result.best_epoch == 0


def test_another_error_is_not_taken_for_ctrl_c(cells) -> None:
    class Fails(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            raise SystemExit(7)

    network, arguments = taught(cells, WATCHED, Fails())
    with pytest.raises(SystemExit) as stop:
        train_network(network, **arguments)
    assert stop.value.code == 7


def test_a_fit_that_is_stopped_leaves_a_fitted_model(cells, tmp_path) -> None:
    settings = {"hidden_sizes": (8,), "max_epochs": 4, "steps_per_epoch": 4}
    model = SelectorMLPClassifier(**settings, trainer_arguments={"callbacks": [CtrlC(4)]})
    with pytest.raises(KeyboardInterrupt):
        model.fit(*cells)
    assert len(model.history_) == 3 and model.best_epoch_ in (2, 3)
    assert set(model.predict(cells[0])) <= set(cells[1])
    save_model(model, tmp_path)
    assert (load_model(tmp_path).predict(cells[0]) == model.predict(cells[0])).all()


SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
from selectormlp import cli

def press():
    while not list(Path("run").glob("models/*/logs/checkpoint/last.ckpt")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press, daemon=True).start()
sys.exit(cli.main(sys.argv[1:]))
"""


def test_ctrl_c_stops_a_whole_run_and_no_half_trained_model_is_saved(tmp_path: Path) -> None:
    simulate_cells(n_cells=300, n_genes=60, n_types=3, seed=0).write_h5ad(tmp_path / "cells.h5ad")
    command = [sys.executable, "-c", SCRIPT, "report", "cells.h5ad", "--label-key", "cell_type", "--out", "run"]
    begin = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, preexec_fn=listen)
    assert done.returncode == 130, done.stderr
    assert "the same command goes on" in done.stderr and "Traceback" not in done.stderr
    models = tmp_path / "run" / "models"
    assert not list(models.glob("*/config.json")), "a model that was stopped was saved as if it were done"
    assert len(list(models.glob("*/logs/checkpoint/last.ckpt"))) == 1 and time.monotonic() - begin < 300
