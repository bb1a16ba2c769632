"""A run that is cut off goes on and ends with the same bytes; every file is whole or not there.

The long version, with random kills, is tests/stress/kills.py. Here the study is stopped at chosen writes: this file is
also the script that loads the packages once and forks a fresh process for every start.
"""

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import pytorch_lightning as pl

from selectormlp import book, save_model, site
from selectormlp.classifiers import SelectorMLPClassifier
from selectormlp.data import InputError, normalise
from selectormlp.simulation import simulate_cells
from selectormlp.study import Study, _only_run, _study_config, _study_steps
from selectormlp.training import _ROBUST

QUICK = {
    "n_genes": 40, "max_epochs": 1, "step": 20, "n_orders": 1, "panel_sizes": (10,), "ablations": ("mlp",),
    "conditions": ("selector_l1", "svm_l1"), "panel_conditions": ("selector_l1",),
}  # fmt: skip
SMALL = {"hidden_sizes": (8,), "max_epochs": 4, "steps_per_epoch": 3}
KILLED = 9


# ------------------------------------------------------------------------------------------------------- as a script


def tables_of(cells: str, folder: Path) -> None:
    """The study without its figures, which take longer than the rest."""
    with _only_run(folder):
        for name, step in _study_steps(Study(_study_config(cells=cells, label_key="cell_type", **QUICK), folder)):
            if not name.startswith("figure") and name != "page":
                step()


def forked(work, log: Path) -> int:
    """Do some work in a forked process; returns 0, KILLED, 4 for an InputError, 3 for another error."""
    log.write_text("")
    number = os.fork()
    if number == 0:
        status = 3
        try:
            work()
            status = 0
        except InputError as error:
            log.write_text(f"InputError: {error}")
            status = 4
        except BaseException as error:
            log.write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def kill_at_rename(nth: int, *, after: bool) -> None:
    """Die when the nth file is whole, right before or right after it gets its name."""
    left, rename = [nth], os.replace

    def replace(*paths) -> None:
        left[0] -= 1
        if left[0] == 0 and not after:
            os._exit(KILLED)
        rename(*paths)
        if left[0] == 0:
            os._exit(KILLED)

    os.replace = replace


def limit_files(size: int) -> None:
    """Let no file become larger than so many bytes: a write beyond it fails, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file with its name, without logs and what is not whole yet."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    names = [path for path in paths if "logs" not in path.parts and not path.name.startswith(".")]
    return {name.as_posix(): (folder / name).read_bytes() for name in names}


def wrong_files(folder: Path, expected: dict[str, bytes], *, ended: bool) -> list[str]:
    """Names of files that are not as they should be, or that are missing at the end."""
    found = files_of(folder)
    wrong = [name for name, value in found.items() if expected.get(name) != value and (ended or name != "tables.json")]
    if "tables.json" in found and not ended:  # grows with every table
        wrong += sorted(
            set(json.loads(found["tables.json"]).items()) - set(json.loads(expected["tables.json"]).items())
        )
    return wrong + sorted(set(expected) - set(found) if ended else [])


def stopped_again_and_again(cells: str, place: Path) -> dict:
    """What becomes of a study that is killed at every fourth file, and of one whose disk is full."""
    log = place / "log.txt"
    assert forked(lambda: tables_of(cells, place / "peace"), log) == 0, log.read_text()
    expected, told = files_of(place / "peace"), {"expected": 0, "kills": 0, "wrong": [], "sentences": [], "swept": True}
    told["expected"] = len(expected)
    status = KILLED
    while status == KILLED:

        def work(after: bool = told["kills"] % 2 == 1) -> None:
            kill_at_rename(4, after=after)
            tables_of(cells, place / "killed")

        status = forked(work, log)
        told["kills"] += status == KILLED
        told["wrong"] += wrong_files(place / "killed", expected, ended=status == 0)
    told["status"], told["swept"] = status, not list((place / "killed").rglob(".*"))
    size, status = 300, 4
    while status != 0 and size < 10**8:

        def cramped(size: int = size) -> None:
            limit_files(size)
            tables_of(cells, place / "full")

        status = forked(cramped, log)
        told["wrong"] += wrong_files(place / "full", expected, ended=status == 0)
        told["sentences"] += [log.read_text()] if status else []
        size *= 4

    def save() -> None:
        model = SelectorMLPClassifier(**SMALL).fit(np.eye(20), np.arange(20) % 2)
        limit_files(500)
        save_model(model, place / "model")

    assert forked(save, log) > 0
    return told | {"save": log.read_text(), "saved": sorted(files_of(place / "model"))}


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    """What `stopped_again_and_again` saw, in a process of its own with one thread."""
    place = tmp_path_factory.mktemp("stopped")
    cells = simulate_cells(n_cells=400, n_genes=80, n_types=4, n_housekeeping=5, library_size=400, size_ratio=3, seed=0)
    cells.write_h5ad(place / "cells.h5ad")
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run([sys.executable, __file__, str(place)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((place / "told.json").read_text())


# ------------------------------------------------------------------------------------------------------------ a study


def test_a_study_killed_at_every_fourth_file_ends_with_the_same_bytes(told) -> None:
    assert told["status"] == 0 and told["kills"] >= 5 and told["expected"] >= 15
    assert told["wrong"] == []


def test_what_a_kill_left_half_written_is_swept(told) -> None:
    assert told["swept"]


def test_a_full_disk_is_one_sentence_and_then_the_study_goes_on(told) -> None:
    assert len(told["sentences"]) >= 4
    for sentence in told["sentences"]:
        assert sentence.startswith("InputError: cannot write") and "make room" in sentence and "\n" not in sentence


def test_a_model_that_finds_no_room_says_so_and_leaves_nothing(told) -> None:
    assert told["save"].startswith("InputError: cannot write 'weights.safetensors'") and told["saved"] == []


def test_a_second_run_in_the_same_folder_is_refused(tmp_path) -> None:
    folder = tmp_path / "run"
    with _only_run(folder):
        with pytest.raises(InputError, match=r"another run is at work in '.*run'; wait for it, or choose another"):
            _only_run(folder).__enter__()
        (folder / "config.json").write_text("{}")
    with _only_run(folder):
        pass
    assert folder.exists()


def test_a_folder_made_for_nothing_is_taken_away_and_others_are_not_touched(tmp_path) -> None:
    with pytest.raises(ValueError, match="no"), _only_run(tmp_path / "run"):
        raise ValueError("no")
    assert not (tmp_path / "run").exists()
    (tmp_path / ".0123abcd.mine").touch()
    with _only_run(tmp_path):
        pass
    assert (tmp_path / ".0123abcd.mine").exists()  # no config.json: not a run's folder


# --------------------------------------------------------------------------------------------------------- a training


@pytest.fixture(scope="module")
def cells() -> tuple:
    adata = normalise(simulate_cells(n_cells=300, n_genes=60, n_types=3, seed=0))
    return adata.X, adata.obs["cell_type"].to_numpy().astype(str)


class CutOff(pl.Callback):
    """Fails at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == self.epoch:
            raise OSError("the lights went out")


def cut_off(cells: tuple, folder: Path, epoch: int = 3, **settings) -> Path:
    """Leave the checkpoint of a training that was cut off; returns its path."""
    model = SelectorMLPClassifier(
        **{**SMALL, **settings}, log_folder=folder, trainer_arguments={"callbacks": [CutOff(epoch)]}
    )
    with pytest.raises(OSError, match="the lights went out"):
        model.fit(*cells)
    return folder / "checkpoint" / "last.ckpt"


def resumed(cells: tuple, folder: Path, **settings) -> SelectorMLPClassifier:
    return SelectorMLPClassifier(**{**SMALL, **settings}, log_folder=folder, resume=True).fit(*cells)


def same(one: SelectorMLPClassifier, two: SelectorMLPClassifier, X) -> bool:
    histories = one.history_.equals(two.history_) and one.best_epoch_ == two.best_epoch_
    return histories and np.array_equal(one.class_scores(X), two.class_scores(X))


def test_a_training_goes_on_from_its_checkpoint(cells, tmp_path, caplog) -> None:
    whole = SelectorMLPClassifier(**SMALL).fit(*cells)
    cut_off(cells, tmp_path)
    assert same(resumed(cells, tmp_path), whole, cells[0]) and not caplog.records


@pytest.mark.parametrize("harm", ["truncated", "empty", "changed", "other"])
def test_a_torn_checkpoint_is_noticed_and_the_training_starts_afresh(harm: str, cells, tmp_path, caplog) -> None:
    path = cut_off(cells, tmp_path)
    whole = path.read_bytes()
    with ZipFile(path) as parts:
        largest = parts.read(max(parts.infolist(), key=lambda part: part.file_size))
    place = whole.index(largest) + len(largest) // 2
    harmed = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "changed": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        "other": b"not a checkpoint",
    }
    path.write_bytes(harmed[harm])
    with caplog.at_level(logging.WARNING, logger="selectormlp"):
        model = resumed(cells, tmp_path)
    assert len(caplog.records) == 1 and "cannot be read, and the training starts afresh" in caplog.text
    assert same(model, SelectorMLPClassifier(**SMALL).fit(*cells), cells[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"random_state": 1}, "its seed is 0, not 1"),
        ({"penalty": "l2"}, "its penalty is 'l1', not 'l2'"),
        ({"learning_rate": 0.5}, "its learning_rate is"),
        ({"hidden_sizes": (9,)}, r"its layers is \[60, 8, 3\], not \[60, 9, 3\]"),
        ({"dropout": 0.1}, "its network is"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_training_is_refused(settings: dict, words: str, cells, tmp_path) -> None:
    cut_off(cells, tmp_path)
    with pytest.raises(InputError, match=f"checkpoint to go on from is of another training: {words}"):
        resumed(cells, tmp_path, **settings)


def test_a_checkpoint_of_other_cells_is_refused(cells, tmp_path) -> None:
    cut_off(cells, tmp_path)
    X, y = cells
    for other in ((X[:, ::-1], y), (X.power(2), y), (X, y[::-1]), (X[:290], y[:290])):
        with pytest.raises(InputError, match="of another training: its (expression|labels|n_cells) is"):
            resumed(other, tmp_path)


def test_a_training_that_was_over_when_it_was_cut_off_is_over(cells, tmp_path) -> None:
    X, y = cells
    types = np.unique(y)
    wrong = types[(np.searchsorted(types, y) + 1) % len(types)]  # as the network learns, it calls ever fewer of these
    settings = {"hidden_sizes": (8,), "max_epochs": 20, "steps_per_epoch": 1, "patience": 1, "learning_rate": 1e-2}
    settings["log_folder"] = tmp_path
    whole = SelectorMLPClassifier(**settings).fit(X, y, validation=(X, wrong))
    assert _ROBUST.unwatched_share * 20 < len(whole.history_) < 20  # it did stop early, in the watched part
    assert same(SelectorMLPClassifier(**settings, resume=True).fit(X, y, validation=(X, wrong)), whole, X)
    whole = SelectorMLPClassifier(**SMALL, log_folder=tmp_path / "to the end", protocol="report").fit(*cells)
    assert same(resumed(cells, tmp_path / "to the end", protocol="report"), whole, cells[0])


# ------------------------------------------------------------------------------------------------------------- a book


def test_a_book_killed_at_its_first_file_goes_on(tmp_path) -> None:
    (tmp_path / ".0123abcd.book.json").write_text('{"cel')  # what a kill within `write_json` leaves
    book._claim_folder(tmp_path, {"cells": "pbmc68k"})
    shutil.rmtree(tmp_path / "notebooks")  # killed after the note, before the folder
    book._claim_folder(tmp_path, {"cells": "pbmc68k"})
    assert (tmp_path / "notebooks").is_dir()


def test_a_site_is_replaced_as_a_whole(tmp_path, monkeypatch) -> None:
    for name in ("new", "site"):
        (tmp_path / name / "site_libs").mkdir(parents=True)
        (tmp_path / name / "index.html").write_text(name)

    def killed(*paths) -> None:
        shutil.copytree(*paths)  # a move to another disk is a copy, which takes its time
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(book.shutil, "move", killed)
        with pytest.raises(KeyboardInterrupt):
            site._replace_folder(tmp_path / "new", tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_text() == "site"
    site._replace_folder(tmp_path / "new", tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"site"}


if __name__ == "__main__":
    import anndata  # noqa: F401  what a study loads, so that no fork has to
    import safetensors.numpy  # noqa: F401
    import scanpy  # noqa: F401
    import sklearn.svm  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    here = Path(sys.argv[1])
    (here / "told.json").write_text(json.dumps(stopped_again_and_again(str(here / "cells.h5ad"), here)))
