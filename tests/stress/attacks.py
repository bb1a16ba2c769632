"""Attack the library the way a stranger's file, a second program or a kill would, and count what happens.

    python tests/stress/attacks.py [--cases 20000] [--seconds 3600] [--seed 0] [--kinds KIND ...] [--write]

Six kinds of cases, each drawn from a seed: damaged files read under the guard of the command line; inputs that changed
behind a run's back; hostile names through every escape; files that lead outside; two writers at a time; kills in the
middle of a write. A case is good when it ends in a result that can be worked with, in a refusal of one sentence, or,
for the guarded reader, in the guard's sentence. Everything else is a fault. Cases, and the time, are shared
between the kinds; `fuzz.py` damages another 11,000 files.
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["MPLBACKEND"] = "Agg"

import fuzz
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from selectormlp import data, files, readers
from selectormlp.data import InputError
from selectormlp.files import (
    _changes_of_cells,
    _fingerprint_cells,
    _only_writer,
    _read_table,
    _record_file,
    _refuse_changed_file,
    _write_table,
)
from selectormlp.guard import _run_guarded
from selectormlp.readers import read_cells

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "data" / "studies" / "stress" / "attacks.csv"
LIMIT = "10"  # seconds that a small damaged file may be read
Outcome = tuple[str, str]


# -------------------------------------------------------------------------------------------- damaged files, guarded


class DamagedFiles:
    """A file of each kind; each case damages one and reads it in a process that is watched."""

    def __init__(self, folder: Path):
        kinds = [kind for kind in fuzz.KINDS if kind != fuzz.ITSELF]
        self.places = []
        for number, kind in enumerate(kinds):
            (folder / str(number)).mkdir()
            self.places.append(fuzz.Place(kind, folder / str(number)))
        self.answer = folder / "answer"

    def case(self, seed: int, number: int) -> Outcome:
        """Read one damaged file."""
        place, me, said = self.places[number % len(self.places)], os.getpid(), []
        self.answer.unlink(missing_ok=True)

        rng = np.random.default_rng([seed, number])
        path = list(place.files)[int(rng.integers(len(place.files)))]
        content = fuzz.damaged(place.files[path], rng)
        path.unlink()
        if content is not None:
            path.write_bytes(content)

        def read() -> int:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with readers._reading(place.target):  # from here on the guard has its eye on it
                outcome, words = fuzz.outcome_of(lambda: place.kind.read(place.target))
            self.answer.write_text(f"{outcome}\n{words}", encoding="utf-8", errors="replace")
            return 0

        try:
            status = _run_guarded(read, said.append)
            if os.getpid() != me:
                os._exit(status)
            if said:
                return "guarded", said[0]
            outcome, _, words = self.answer.read_text(encoding="utf-8").partition("\n")
            return outcome, words
        finally:
            if os.getpid() == me:
                path.unlink(missing_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(place.files[path])


# ------------------------------------------------------------------------------------------------------- stale inputs


class StaleInputs:
    """Small cells; each case changes one thing, which a fingerprint must see, or nothing, which it must not."""

    def __init__(self, folder: Path):
        self.cells = fuzz.small_cells()
        self.before = _fingerprint_cells(self.cells, "cell_type")

    def case(self, seed: int, number: int) -> Outcome:
        """Change something, and ask."""
        rng, cells = np.random.default_rng([seed, number]), self.cells.copy()
        kind = int(rng.integers(9))
        one, other = rng.choice(cells.n_obs, 2, replace=False)
        gene, second = rng.choice(cells.n_vars, 2, replace=False)
        labels, X = cells.obs["cell_type"].astype(str).to_numpy(), cells.X.toarray()
        if kind == 0:
            cells = cells[rng.permutation(cells.n_obs)].copy()
        elif kind == 1:
            cells = cells[:, rng.permutation(cells.n_vars)].copy()
        elif kind == 2:
            labels[[one, other]] = labels[[other, one]]
        elif kind == 3:
            labels[one] = f"type {rng.integers(10**6)}"
        elif kind == 4:
            X[one, gene] += rng.choice([1, -1, 1e-6])
        elif kind == 5:
            X[[one, other]] = X[[other, one]]
        elif kind == 6:
            X[[one, other], [gene, second]] += 1
            X[[one, other], [second, gene]] -= 1
        elif kind == 7:
            names = cells.obs_names.to_numpy().copy()
            names[[one, other]] = names[[other, one]]
            cells.obs_names = names
        if kind in (2, 3):
            cells.obs["cell_type"] = pd.Categorical(labels)
        if kind in (4, 5, 6, 8):
            cells.X = X if rng.integers(2) else csr_matrix(X)
        same = (
            list(cells.obs_names) == list(self.cells.obs_names)
            and list(cells.var_names) == list(self.cells.var_names)
            and list(cells.obs["cell_type"].astype(str)) == list(self.cells.obs["cell_type"].astype(str))
            and np.array_equal(
                cells.X if isinstance(cells.X, np.ndarray) else cells.X.toarray(), self.cells.X.toarray()
            )
        )
        try:
            seen = _changes_of_cells(self.before, _fingerprint_cells(cells, "cell_type"))
        except InputError as error:  # values below zero are no counts any more
            return ("faults" if same else "refused"), str(error)
        if bool(seen) == same:
            return "faults", f"change {kind} of case {number}: seen as {seen}"
        return ("refused" if seen else "read"), ""


# ------------------------------------------------------------------------------------------------------ hostile names

PIECES = [
    "=", "+", "-", "@", "'", '"', "\t", "\r", "\n", "$", "\\", "_", "{", "}", "<", ">", "&", "`", "[", "](", ")", "!",
    "|", "#", "*", "~", ":", "%", ",", ";", "\x1b[2J", "\x07", "\x00", "\u202e", "\ufeff", "β", "漢", "😀", "script",
    "fig-a", "http://example.org", "javascript:", "alert(1)", "1", "A1", "cmd", "NA", "nan", " ", "..", "/", "x" * 300,
]  # fmt: skip


class HostileNames:
    """Names put together from what some language takes for a command."""

    def __init__(self, folder: Path):
        self.table = folder / "names.csv"

    def case(self, seed: int, number: int) -> Outcome:
        """Write some names everywhere, and read them back."""
        rng = random.Random(seed * 10**9 + number)
        names = ["".join(rng.choices(PIECES, k=rng.randint(1, 6))) for _ in range(4)]
        plain = [name.replace("\r", "").replace("\x00", "") for name in names]  # csv knows neither
        names = [name for name in plain if name.strip()] or ["x"]
        _write_table(pd.DataFrame({"gene": names}), self.table)
        cells = [cell for row in csv.reader(io.StringIO(self.table.read_text(encoding="utf-8"))) for cell in row]
        ran = [
            cell for cell in cells if data._FORMULA.match(cell) and not cell.startswith("'") and not _is_number(cell)
        ]
        back = _read_table(self.table)["gene"].tolist()
        if ran or back != names:
            return "faults", f"case {number}: {names!r} came back as {back!r}, and {ran!r} would run"
        for name in names:
            shown = data._terminal_text(name) + data._figure_text(name) + data._markdown_text(name)
            if data._UNSEEN.search(shown) or any(mark in data._markdown_text(name) for mark in "<>`*|@$[]\n"):
                return "faults", f"case {number}: {name!r}"
        if number % 50 == 0:
            draw(names)
        return "read", ""


def _is_number(text: str) -> bool:
    """Say whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def draw(names: list[str]) -> None:
    """Draw a figure with names in it."""
    import matplotlib.pyplot as plt

    from selectormlp.evaluation import plot_confusion

    names = [f"{name}{i}" for i, name in enumerate(names)]
    axes = plot_confusion(pd.DataFrame(np.eye(len(names)), names, names))
    axes.figure.canvas.draw()
    plt.close(axes.figure)


# --------------------------------------------------------------------------------------------- files that lead outside


class OutsideFiles:
    """HDF5 files and .zarr folders with links, foreign storage or foreign codecs at random places; and bombs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.good = fuzz.make_h5ad(folder)
        self.secret = Path(shutil.copy(self.good, folder / "secret.h5"))
        self.store = fuzz.make_zarr(folder)

    def case(self, seed: int, number: int) -> Outcome:
        """Make one, and read it."""
        rng = random.Random(seed * 10**9 + number)
        path = rng.choices([self.bad_file, self.bad_store, self.bomb], [6, 4, 1])[0](rng)
        try:
            read_cells(path)
        except InputError as error:
            return "refused", str(error)
        finally:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return "faults", f"case {number}: it was read"

    def bad_file(self, rng: random.Random) -> Path:
        """An .h5ad file, plain or packed."""
        import gzip

        import h5py

        path = Path(shutil.copy(self.good, self.folder / "bad.h5ad"))
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            groups = ["/", *(name for name in names if isinstance(file[name], h5py.Group))]
            place = rng.choice(groups) + "/" + rng.choice(["x", "data", "zz"])
            if place in file:
                del file[place]
            how = rng.randrange(4)
            if how == 0:
                file[place] = h5py.ExternalLink(rng.choice([str(self.secret), "/etc/passwd", "none"]), "/X")
            elif how == 1:
                layout = h5py.VirtualLayout((3,), np.float32)
                layout[:] = h5py.VirtualSource(str(self.secret), "X/data", (3,))
                file.create_virtual_dataset(place, layout)
            elif how == 2:
                file.create_dataset(place, (3,), np.float32, external=[(str(self.secret), 0, 12)])
            else:  # only a reference leads there
                hidden = file.create_group("hidden")
                hidden["itself"] = hidden
                part = hidden.create_dataset("part", (2,), "S5", external=[(str(self.secret), 0, 10)])
                file[rng.choice(["/", *(name for name in names if name in file)])].attrs[
                    rng.choice(["categories", "x"])
                ] = part.ref
                del file["hidden"]
        if rng.random() < 0.3:
            packed = path.with_name("bad.h5ad.gz")
            packed.write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
            return packed
        return path

    def bomb(self, rng: random.Random) -> Path:
        """A small file that would fill the memory or the disk, were it read as it wants; limits are those of a test."""
        import gzip

        how = rng.randrange(3)
        if how == 0:
            path = self.folder / "bomb.h5ad.gz"
            path.write_bytes(gzip.compress(readers._HDF5_BEGINS + bytes(rng.randrange(2, 9) * 2**24)))
        elif how == 1:
            path = self.folder / "bomb.csv.gz"
            path.write_bytes(gzip.compress(b",a,b\nx,1," + b"1" * rng.randrange(2, 9) * 2**20))
        else:
            path = Path(shutil.copytree(self.store, self.folder / "bomb.zarr"))
            place = rng.choice([*path.rglob(".zarray"), *path.rglob(".zmetadata")])
            place.write_text('{"a":' * 10**5 + "1" + "}" * 10**5, encoding="utf-8")
        return path

    def bad_store(self, rng: random.Random) -> Path:
        """A .zarr folder."""
        import json

        path = Path(shutil.copytree(self.store, self.folder / "bad.zarr"))
        if rng.random() < 0.5:
            folders = [each for each in path.rglob("*") if each.is_dir()]
            bad = rng.choice(folders) / "zz"
            os.mkfifo(bad) if rng.random() < 0.3 else bad.symlink_to(rng.choice(["/etc", str(self.secret), "nowhere"]))
            return path
        place = rng.choice([*path.rglob(".zarray"), *path.rglob(".zmetadata"), *path.rglob("zarr.json")])
        about = json.loads(place.read_text(encoding="utf-8"))
        names = [rng.choice(["pickle", "numcodecs.pickle", "os.system", "unknown"]), "zstd"]
        codec = dict(
            zip(rng.sample(["id", "name"], 2), names, strict=True) if rng.random() < 0.5 else [("id", names[0])]
        )
        if place.name == ".zmetadata":
            about["metadata"][f"obs/{rng.choice(['attributes', 'x'])}/.zarray"] = {
                "zarr_format": 2,
                "compressor": codec,
            }
        else:
            about["filters" if place.name == ".zarray" else "codecs"] = [codec]
        place.write_text(json.dumps(about), encoding="utf-8")
        return path


# ------------------------------------------------------------------------------------------------- writers and kills


def write_pair(folder: Path, text: str) -> None:
    """Write a table and what belongs to it, as `select` does."""
    from selectormlp.files import _remove_companions

    with _only_writer(folder / "p.csv"):
        _remove_companions(folder / "p_report", ["panel.html"])
        _write_table(pd.DataFrame({"gene": [text]}), folder / "p.csv")
        (folder / "p_report").mkdir(exist_ok=True)
        with files._write_whole(folder / "p_report" / "panel.html") as path:
            path.write_text(text, encoding="utf-8")


def agree(folder: Path) -> bool:
    """Say whether a page that is there belongs to the table beside it."""
    page = folder / "p_report" / "panel.html"
    return not page.exists() or page.read_text(encoding="utf-8") in (folder / "p.csv").read_text(encoding="utf-8")


class OverlappingWriters:
    """Two processes write the same panel, again and again."""

    def __init__(self, folder: Path):
        self.folder = folder

    def case(self, seed: int, number: int) -> Outcome:
        """Two at a time."""
        children = []
        for text in ("one", "two"):
            child = os.fork()
            if child == 0:
                try:
                    write_pair(self.folder, f"{text}{number}")
                    os._exit(0)
                except InputError:
                    os._exit(3)
                except BaseException:
                    os._exit(1)
            children.append(child)
        ends = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
        if not ends <= {0, 3} or not agree(self.folder) or list(self.folder.glob(".*.lock")):
            return "faults", f"case {number}: {ends}"
        return ("refused" if 3 in ends else "read"), ""


class Kills:
    """A process writes a panel, a model of a collection, or a table of a run, and kills itself on the way."""

    def __init__(self, folder: Path):
        from selectormlp.classifiers import LinearSVMClassifier
        from selectormlp.collection import ModelCollection

        self.folder, self.models = folder, ModelCollection(folder / "models")
        X, y = np.random.default_rng(0).random((20, 3)).astype(np.float32), np.repeat(["a", "b"], 10)
        self.X = X
        self.made = [LinearSVMClassifier(C=C).fit(X, y, gene_names=list("abc")) for C in (0.1, 1.0)]
        self.models.save(self.made[0], "m")

    def case(self, seed: int, number: int) -> Outcome:
        """Write, die, and look."""
        rng = random.Random(seed * 10**9 + number)
        what, steps = rng.randrange(3), rng.randrange(1, 12)
        child = os.fork()
        if child == 0:
            self.die_at(steps)
            try:
                self.write(what, number)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        try:
            return self.look(what, number)
        except InputError as error:
            return "faults", f"case {number} ({what}, {steps}): {error}"

    def die_at(self, steps: int) -> None:
        """Kill this process at the so-many-th change of a name or removal."""
        left = [steps]
        for owner, name in ((os, "replace"), (os, "unlink"), (Path, "replace"), (shutil, "rmtree")):
            real = getattr(owner, name)

            def dying(*given: Any, real: Callable[..., Any] = real, **more: Any) -> Any:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **more)

            setattr(owner, name, dying)

    def write(self, what: int, number: int) -> None:
        """Write something that is there already."""
        if what == 0:
            write_pair(self.folder, f"kill{number}")
        elif what == 1:
            self.models.save(self.made[number % 2], "m", replace=True)
        else:
            _write_table(
                pd.DataFrame({"n": [number]}),
                self.folder / "t.csv",
                before=lambda new: _record_file(self.folder, "t.csv", new),
            )

    def look(self, what: int, number: int) -> Outcome:
        """Is what is there whole, and does it belong together?"""
        if what == 0:
            return ("read", "") if agree(self.folder) else ("faults", f"case {number}: csv and page differ")
        if what == 1:
            scores = self.models.load("m").class_scores(self.X)
            whole = any((scores == model.class_scores(self.X)).all() for model in self.made)
            return ("read", "") if whole else ("faults", f"case {number}: another model")
        if (self.folder / "t.csv").exists():
            try:
                _refuse_changed_file(self.folder, "t.csv")
            except InputError as error:  # killed between the record and the table: said, with the way out
                (self.folder / "t.csv").unlink()
                return "refused", str(error)
        return "read", ""


# -------------------------------------------------------------------------------------------------------------- counts

KINDS: dict[str, tuple[Callable[[Path], Any], float]] = {
    "damaged files, guarded": (DamagedFiles, 0.25),
    "inputs that changed": (StaleInputs, 0.25),
    "hostile names": (HostileNames, 0.25),
    "files that lead outside": (OutsideFiles, 0.10),
    "overlapping writers": (OverlappingWriters, 0.05),
    "kills in a write": (Kills, 0.10),
}
OUTCOMES = ("read", "refused", "guarded", "faults")


def run(kind: str, cases: int, seconds: float, seed: int) -> dict[str, Any]:
    """Try the cases of one kind, until they or the time are over."""
    counts, faults, longest = Counter(), [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        attack = KINDS[kind][0](Path(folder))
        begun = time.monotonic()
        for number in range(cases):
            start = time.monotonic()
            if start > begun + seconds:
                break
            outcome, words = attack.case(seed, number)
            longest = max(longest, time.monotonic() - start)
            if "\n" in words and outcome == "refused":
                outcome = "faults"
            counts[outcome] += 1
            if outcome == "faults":
                faults.append(words)
    row = {"kind": kind, "cases": counts.total(), **{name: counts[name] for name in OUTCOMES}}
    return {**row, "longest (s)": round(longest, 1), "seconds": round(time.monotonic() - begun), "_faults": faults}


def main() -> None:
    """Run all kinds, print the table, and fail where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="the rows of others stay")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")
    asked = parser.parse_args()
    os.environ["SELECTORMLP_READ_SECONDS"] = LIMIT
    readers._MOST_UNPACKED, readers._LONGEST_LINE = 2**24, 2**20
    warnings.simplefilter("ignore")
    multiprocessing.set_start_method("fork", force=True)
    rows = []
    for kind in asked.kinds:
        share = KINDS[kind][1]
        rows.append(run(kind, round(share * asked.cases), share * asked.seconds, asked.seed))
        sys.stdout.write(f"{ {name: value for name, value in rows[-1].items() if name != '_faults'} }\n")
        sys.stdout.flush()
    faults = [words for row in rows for words in row.pop("_faults")]
    table = pd.DataFrame(rows)
    if asked.write and TABLE.exists():
        before = pd.read_csv(TABLE)
        table = pd.concat([table, before[~before["kind"].isin(["all", *asked.kinds])]])
        table = table.set_index("kind").loc[[kind for kind in KINDS if kind in set(table["kind"])]].reset_index()
    total = {"kind": "all", **table.drop(columns=["kind", "longest (s)"]).sum().to_dict()}
    table = pd.concat([table, pd.DataFrame([{**total, "longest (s)": table["longest (s)"].max()}])], ignore_index=True)
    sys.stdout.write(table.to_string(index=False) + "\n" + "\n".join(faults[:20]) + "\n")
    if asked.write:
        _write_table(table, TABLE)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
