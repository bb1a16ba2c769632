"""Run chapters with the code samples of their texts, so that no page shows a line that does not work.

    python tools/run_chapter.py nbs/15_masking.ipynb

What runs is `nbdev_test`, on a copy of each chapter that holds the samples, too. A solution (Python in <details>) runs
after the cell that shows it. The other samples, Python and shell, run at the end, in an empty folder with small files
of the names that samples use. A comment before a sample prepares it, or says why it is not run here. Then only what it
imports from this library is tried; tests/test_samples.py asks for its options.

    <!-- sample: other_X = X -->            a line of Python
    <!-- not run: needs two machines -->
"""

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = re.compile(
    r"(?:^<!-- (?P<role>sample|not run): (?P<words>.*?) -->\s*)?^(?P<fence>~~~|```) ?(?P<language>python|py|bash)\n"
    r"(?P<code>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


class Sample(NamedTuple):
    """A piece of code in a text: how it is prepared, why it is not run (if it is not), and whether it is a solution."""

    language: str
    code: str
    prepared: str
    not_run: str
    is_solution: bool

    def cells(self) -> list[str]:
        """What is run of it; of Python that is not run, what it imports from this library."""
        if self.not_run and self.language == "bash":
            return []
        if self.not_run:
            steps = [step for step in ast.walk(ast.parse(self.code)) if isinstance(step, ast.ImportFrom)]
            return [ast.unparse(step) for step in steps if (step.module or "").startswith("selectormlp")]
        code = f"%%bash\nset -e\n{self.code}" if self.language == "bash" else self.code
        return [self.prepared, code] if self.prepared else [code]


def samples(text: str) -> list[Sample]:
    """List the code samples of a text in Markdown."""
    found = []
    for sample in SAMPLE.finditer(text):
        before = text[: sample.start()]
        said = {sample["role"]: sample["words"]}
        inside = before.count("<details>") > before.count("</details>")
        words = (said.get("sample", ""), said.get("not run", ""))
        found.append(Sample(sample["language"], sample["code"], *words, is_solution=inside))
    return found


def write_10x(cells: Any, path: Path) -> None:
    """Write cells as 10x Genomics does: a folder of three files, and an .h5 of the same name."""
    import h5py
    import pandas as pd
    from scipy.io import mmwrite

    path.mkdir()
    mmwrite(path / "matrix.mtx", cells.X.T.astype(int))
    features = pd.DataFrame({"id": cells.var_names, "name": cells.var_names, "feature_type": "Gene Expression"})
    features.to_csv(path / "features.tsv", sep="\t", index=False, header=False)
    pd.Series(cells.obs_names).to_csv(path / "barcodes.tsv", index=False, header=False)
    parts = {"barcodes": list(cells.obs_names), "shape": cells.shape[::-1], "features/genome": [""] * cells.n_vars}
    parts |= {name: getattr(cells.X, name) for name in ("data", "indices", "indptr")}
    parts |= {f"features/{name}": list(column) for name, column in features.items()}
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, part in parts.items():
            file[f"matrix/{name}"] = part


def write_files(folder: Path) -> None:
    """Write the small files whose names stand in the samples: a reader's cells, in each form that is read."""
    from selectormlp.simulation import simulate_cells

    cells = simulate_cells(n_cells=600, n_genes=200, n_types=4, seed=0)
    cells.obs["donor"] = [f"donor{number % 3 + 1}" for number in range(cells.n_obs)]
    for name in ("my_cells", "cells", "atlas", "lab_1", "donor1", "donor2"):
        cells.write_h5ad(folder / f"{name}.h5ad")
    notebooks = [path for kind in ("[!_]*.ipynb", "[!._]*/[!_]*.ipynb") for path in (ROOT / "nbs").glob(kind)]
    for file in [*notebooks, *(ROOT / "data" / "example_workflow").glob("*.json")]:
        (folder / file.name).symlink_to(file)
    types = cells.obs[["cell_type"]]
    for name in ("types", "lab_1_labels", "lab_2_labels"):
        types.to_csv(folder / f"{name}.csv")
    types.to_csv(folder / "types.tsv", sep="\t")
    cells.to_df().to_csv(folder / "counts.csv.gz")
    cells.to_df().to_csv(folder / "lab_2.csv")
    two = cells[cells.obs["cell_type"].isin(sorted(set(cells.obs["cell_type"]))[:2])]
    two.to_df().T.to_csv(folder / "my_table.csv.gz")
    responds = two.obs["cell_type"] == two.obs["cell_type"].iloc[0]
    responds.map({True: "responder", False: "other"}).to_frame("response").to_csv(folder / "my_labels.csv")
    write_10x(cells, folder / "filtered_feature_bc_matrix")


def with_samples(notebook: Any, folder: str) -> Any:
    """Put the code samples of a notebook's texts into it, as cells; those that are no solutions run in the folder."""
    from nbformat.v4 import new_code_cell

    cells: list[Any] = []
    last: list[Any] = []
    for cell in notebook.cells:
        cells.append(cell)
        for sample in samples(cell.source) if cell.cell_type == "markdown" else []:
            (cells if sample.is_solution else last).extend(map(new_code_cell, sample.cells()))
    move = [new_code_cell(f"import os\nos.chdir({folder!r})")] if last else []
    notebook.cells = cells + move + last
    return notebook


def write_copy(chapter: Path, folder: Path) -> Path:
    """Write a chapter with its samples beside it, under a name that nbdev leaves out; they run in the folder."""
    import nbformat

    notebook = with_samples(nbformat.read(chapter, 4), str(folder))
    if any(str(folder) in cell.source for cell in notebook.cells):
        folder.mkdir()
        write_files(folder)
    copy = chapter.with_name(f"_{chapter.name}")
    nbformat.write(notebook, copy)
    return copy


def run_copy(copy: Path) -> bool:
    """Run `nbdev_test` on a copy of a chapter, in a process of its own, and say how long it took."""
    start = time.monotonic()
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [str(Path(sys.executable).with_name("nbdev_test")), "--path", str(copy.parent), "--n_workers", "0"]
    command += ["--file_re", f"^{re.escape(copy.name)}$", "--skip_file_re", r"^\."]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": programs}, capture_output=True, text=True)
    passed = done.returncode == 0
    said = "" if passed else f"\n{done.stdout}{done.stderr}"
    print(f"{copy.name[1:]}: {'passed' if passed else 'FAILED'} in {time.monotonic() - start:.0f} s{said}", flush=True)
    return passed


def run_chapters(chapters: Sequence[Path], *, at_once: int = 1) -> bool:
    """Run `nbdev_test` on copies of chapters with their samples, some at once; true if all pass.

    Each has a process of its own: one that runs many keeps what all of them left, some gigabytes.
    """
    copies: list[Path] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as pool:
        try:
            copies.extend(write_copy(chapter, Path(folder) / chapter.stem) for chapter in chapters)
            return all(list(pool.map(run_copy, copies)))
        finally:
            for copy in copies:
                copy.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", type=Path, nargs="+", help="notebooks in nbs, or in its folders")
    parser.add_argument("--at-once", type=int, default=1, help="how many run at the same time")
    asked = parser.parse_args()
    sys.exit(not run_chapters([chapter.resolve() for chapter in asked.chapters], at_once=asked.at_once))
