"""Is nothing lost when a run is killed? Kills studies, trainings and books at random moments until they end.

    python tests/stress/kills.py [--study 60] [--training 60] [--select 60] [--predict 30] [--collection 60] [--book 3]
                                 [--seed 0] [--out FILE]

Each kind runs once in peace. Then it is started again and again, and stopped at random (seeded) moments, until so many
interruptions have happened and the last run has ended. After each, every file that is there must be whole and hold
the bytes that it holds after the run in peace; at the end all must be there. Logs are left out: Lightning appends to
them. The full disk is a small tmpfs that grows (root only; else a limit to the size of a file, RLIMIT_FSIZE).

`select`, `predict` and the saving of a model into a collection are killed while they replace an older result: what is
there then must be of the old one or of the new one, all of it.
Writes data/studies/stress/kills.csv; the rows of what was not asked for stay.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from zipfile import ZipFile

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["MPLBACKEND"] = "Agg"

import pandas as pd
import pytorch_lightning  # noqa: F401  (each run is a fork of this process, which loads packages and computes nothing)
import sklearn.svm  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

from selectormlp import panels, selection  # noqa: F401
from selectormlp.classifiers import LinearSVMClassifier, SelectorMLPClassifier
from selectormlp.cli import main as main_of_library
from selectormlp.collection import ModelCollection
from selectormlp.data import InputError, normalise
from selectormlp.files import _write_table
from selectormlp.saving import save_model
from selectormlp.simulation import simulate_cells
from selectormlp.study import _study_config, run_study

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "data" / "studies" / "stress" / "kills.csv"
QUICK = {
    "n_genes": 60, "max_epochs": 6, "step": 20, "n_orders": 2, "panel_sizes": (20, 10), "ablations": ("mlp",),
    "conditions": ("selector_l1", "svm_l1"), "panel_conditions": ("selector_l1", "svm_l1"),
}  # fmt: skip
LONGEST = 900  # seconds that one start may take


# ---------------------------------------------------------------------------------------------------- what is stopped


def study(cells: Path, folder: Path) -> None:
    """The whole report in small: models, rankings, curves, panels, scores, figures and the page."""
    run_study(_study_config(cells=str(cells), label_key="cell_type", **QUICK), folder / "run", progress=False)


def training(cells: Path, folder: Path) -> None:
    """One network, saved; it stops early."""
    from anndata import read_h5ad

    adata = normalise(read_h5ad(cells))
    settings = {"max_epochs": 16, "steps_per_epoch": 10, "patience": 3}
    model = SelectorMLPClassifier(**settings, log_folder=folder / "logs", resume=True)
    model.fit(adata.X, adata.obs["cell_type"].to_numpy().astype(str))
    save_model(model, folder / "model")


def book(cells: Path, folder: Path) -> None:
    """The chapters on the cells, as a site; in a process of its own, as its chapters are."""
    command = ["-m", "selectormlp", "book", str(cells), "--label-key", "cell_type", "--out", str(folder / "book")]
    os.execv(sys.executable, [sys.executable, *command])


def select(cells: Path, folder: Path, *, n_genes: int = 9) -> None:
    """A panel with its page, where there is one already."""
    out = ["--out", str(folder / "panel.csv"), "--n-jobs", "1", "--n-genes", str(n_genes)]
    if main_of_library(["select", str(cells), "--label-key", "cell_type", *out]) != 0:
        raise RuntimeError("select failed")


def saved_model(cells: Path, folder: Path, *, C: float = 1.0) -> None:
    """A linear model, saved into a collection that has one of that name."""
    from anndata import read_h5ad

    adata = normalise(read_h5ad(cells))
    labels = adata.obs["cell_type"].to_numpy().astype(str)
    model = LinearSVMClassifier(C=C).fit(adata.X, labels, gene_names=adata.var_names)
    ModelCollection(folder / "models").save(model, "m", replace=True)


def predict(cells: Path, folder: Path, *, model: str = "new") -> None:
    """A table of types, where there is one already."""
    given = ["--model", str(cells.parent / model), "--out", str(folder / "p.csv")]
    if main_of_library(["predict", str(cells), *given]) != 0:
        raise RuntimeError("predict failed")


Work = Callable[[Path, Path], None]
WORKS: dict[str, Work] = {"study": study, "training": training, "book": book}
REPLACED: dict[str, tuple[Work, Work]] = {  # the older result, and what is killed while it replaces it
    "select": (partial(select, n_genes=6), select),
    "predict": (partial(predict, model="old"), predict),
    "collection": (partial(saved_model, C=0.1), saved_model),
}


# -------------------------------------------------------------------------------------------------- how it is stopped


@dataclass
class Tally:
    """What happened: one row of the table."""

    what: str
    how: str
    runs: int = 0
    interruptions: int = 0
    files: int = 0
    differences: list[str] = field(default_factory=list)

    def check(self, folder: Path, expected: dict[str, bytes], *, ended: bool) -> None:
        """Compare what is there with what belongs there."""
        found = files_of(folder)
        self.files += len(found)
        for name in set(expected) - set(found) if ended else ():
            self.differences.append(f"{name} is missing")
        for name, value in found.items():
            if name not in expected or value != expected[name]:
                self.differences.append(f"{name} differs")
        for path in folder.rglob("last.ckpt"):
            self.files += 1
            with ZipFile(path) as parts:
                if parts.testzip():
                    self.differences.append(f"{path.relative_to(folder)} is torn")


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file but logs and what is not whole yet; notebooks and pages, which hold times, as their being whole."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        parts = set(path.relative_to(folder).parts)
        if path.is_dir() or "logs" in parts or any(part.startswith(".") for part in parts) or "site" in parts:
            continue
        value = path.read_bytes()
        if path.suffix == ".ipynb":
            value = b"notebook" if json.loads(value)["cells"] else b""
        found[name] = value
    return found


def start(work: Work, cells: Path, folder: Path, *, limit: int | None = None) -> int:
    """Fork a process that does the work; returns its number."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    status = 3
    try:
        os.setsid()
        log = os.open(folder.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, or a shell's "&", would have them ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        work(cells, folder)
        status = 0
    except InputError as error:
        os.write(2, f"InputError: {error}\n".encode())
        status = 4
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def wait(number: int, seconds: float) -> int | None:
    """The exit status of a process, below 0 for a signal; None if it still runs after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def interrupted(
    tally: Tally, name: str, cells: Path, expected: dict[str, bytes], *, how: int, times: int, seconds: float, seed: int
) -> None:
    """Run a work to its end, over and over, until it was stopped so many times at random moments."""
    rng = random.Random(seed)
    while tally.interruptions < times:
        with tempfile.TemporaryDirectory() as place:
            folder, patience = Path(place) / "work", seconds
            folder.mkdir()
            tally.runs += 1
            while True:
                number = start(WORKS[name], cells, folder)
                last = tally.interruptions >= times  # the last run goes to its end in peace
                status = wait(number, LONGEST if last else rng.uniform(0, patience))
                if status is None:
                    os.kill(number, how)
                    status = wait(number, 60)
                    if status is None:
                        tally.differences.append(f"goes on after signal {how}")
                        os.kill(number, signal.SIGKILL)
                        os.waitpid(number, 0)
                    elif status != 0:
                        tally.interruptions += 1
                        patience *= 1.1  # so that it ends some day
                elif status != 0:
                    tally.differences.append(f"ended with {status}: {last_line(folder)}")
                    break
                tally.check(folder, expected, ended=status == 0)
                if status == 0 or tally.differences:
                    break
        if tally.differences:
            return


def last_line(folder: Path) -> str:
    """The last line that the work wrote."""
    log = folder.parent / "log.txt"
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1] if log.exists() else ""


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[int], None] | None]:
    """A disk of so many bytes at `place` and what makes it larger; None without the right to mount one."""
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield lambda more: subprocess.run(
            ["mount", "-o", f"remount,size={more}", str(place)], check=True, capture_output=True
        )
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def full_disk(name: str, cells: Path, expected: dict[str, bytes], *, first: int, factor: float) -> Tally:
    """Run a work on a disk that is too small, and go on each time when there is more room."""
    tally, size = Tally(name, ""), first
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "work"
        folder.mkdir()
        with small_disk(folder, size) as grow:
            tally.how = "full disk (RLIMIT_FSIZE)" if grow is None else "full disk (tmpfs)"
            tally.runs = 1
            while True:
                status = wait(start(WORKS[name], cells, folder, limit=size if grow is None else None), LONGEST)
                tally.check(folder, expected, ended=status == 0)
                if status == 0 or tally.differences:
                    return tally
                if status != 4 or "No space" not in last_line(folder) and "File too large" not in last_line(folder):
                    tally.differences.append(f"ended with {status}: {last_line(folder)}")
                    return tally
                tally.interruptions += 1
                size = int(size * factor)
                if grow is not None:
                    grow(size)


WHOLE = ("panel.csv", "p.csv", "models/m/config.json")  # these are there at any moment, of the old or the new result


def replaced(name: str, cells: Path, *, times: int, seed: int) -> Tally:
    """Kill a command so many times while it replaces an older result; what is left belongs together."""
    tally, rng, (before, after) = Tally(name, "SIGKILL, over an older result"), random.Random(seed), REPLACED[name]
    (old, _), (new, seconds) = in_peace(before, cells), in_peace(after, cells)
    if not set(old) & set(new) or any(old.get(file) == new[file] for file in WHOLE if file in new):
        raise RuntimeError(f"the two results of {name} cannot be told apart")
    while tally.interruptions < times and not tally.differences:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "work"
            folder.mkdir()
            for work, patience in ((before, LONGEST), (after, rng.uniform(0, seconds)), (after, LONGEST)):
                number = start(work, cells, folder)
                tally.runs += 1
                if wait(number, patience) is None:
                    os.kill(number, signal.SIGKILL)
                    os.waitpid(number, 0)
                    tally.interruptions += 1
                found = files_of(folder)
                tally.files += len(found)
                wrong = [{file for file, value in found.items() if result.get(file) != value} for result in (old, new)]
                lacking = (set(old) & set(new) & set(WHOLE)) - set(found)
                tally.differences += [f"{file} is missing" for file in lacking]
                tally.differences += [f"{file} is of another result" for file in min(wrong, key=len)]
            tally.differences += [f"{file} differs at the end" for file in new if found.get(file) != new[file]]
    return tally


# ------------------------------------------------------------------------------------------------------------ the whole


def in_peace(work: Work, cells: Path) -> tuple[dict[str, bytes], float]:
    """What a work leaves that nobody stops, and the seconds it takes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "work"
        folder.mkdir()
        begin = time.monotonic()
        status = wait(start(work, cells, folder), LONGEST)
        if status != 0:
            raise RuntimeError(f"{work} ended with {status}: {last_line(folder)}")
        return files_of(folder), time.monotonic() - begin


def main() -> int:
    """Stop everything in every way, and say what was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = {"study": 60, "training": 60, "select": 60, "predict": 30, "collection": 60, "book": 3, "seed": 0}
    for name, times in usual.items():
        parser.add_argument(f"--{name}", type=int, default=times)
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args()
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory() as place:
        cells = Path(place) / "cells.h5ad"
        simulate_in_a_fork(cells)
        for name in REPLACED:
            if getattr(given, name):
                tallies.append(replaced(name, cells, times=getattr(given, name), seed=given.seed))
                report(tallies[-1])
        for name in ("training", "study", "book"):
            times = getattr(given, name)
            if times == 0:
                continue
            expected, seconds = in_peace(WORKS[name], cells)
            print(f"{name}: {len(expected)} files in {seconds:.1f} s", flush=True)
            ways = {"SIGKILL": times, "SIGHUP": times // 6, "SIGINT": times // 6}
            for way, count in ways.items():
                if count == 0:
                    continue
                tally = Tally(name, way)
                signal_number = getattr(signal, way)
                interrupted(
                    tally, name, cells, expected, how=signal_number, times=count, seconds=seconds / 4, seed=given.seed
                )
                tallies.append(tally)
                report(tally)
            if name != "book":
                tallies.append(full_disk(name, cells, expected, first=40_000, factor=1.25))
                report(tallies[-1])
    rows = [(t.what, t.how, t.runs, t.interruptions, t.files, len(t.differences)) for t in tallies]
    columns = ["what", "stopped_by", "runs", "interruptions", "files_checked", "differences"]
    table = pd.DataFrame(rows, columns=columns)
    if given.out.exists():
        before = pd.read_csv(given.out)
        table = pd.concat([before[~before["what"].isin(table["what"])], table])
    _write_table(table, given.out)
    return int(any(tally.differences for tally in tallies))


def simulate_in_a_fork(cells: Path) -> None:
    """Write the cells in another process: this one computes nothing, so that its forks start clean."""

    def write(_: Path, folder: Path) -> None:
        simulate_cells(n_cells=500, n_genes=120, n_types=4, size_ratio=3, seed=0).write_h5ad(cells)
        for name, C in {"old": 1e-4, "new": 1.0}.items():
            saved_model(cells, folder, C=C)
            (folder / "models" / "m").rename(folder / name)

    if wait(start(write, cells, cells.parent), LONGEST) != 0:
        raise RuntimeError("the cells could not be made")


def report(tally: Tally) -> None:
    """One line to read."""
    lost = "; ".join(tally.differences[:3]) or "nothing lost"
    print(
        f"{tally.what}, {tally.how}: {tally.interruptions} interruptions in {tally.runs} runs, "
        f"{tally.files} files checked, {lost}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
