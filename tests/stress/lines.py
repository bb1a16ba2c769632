"""Which lines of the library do the tests and the chapters run?

    python tests/stress/lines.py [--only tests | notebooks] [--write]

Runs pytest and all notebooks under coverage.py, the processes that they start included, and prints the share of the
lines of each module that ran. `--write` writes data/studies/stress/lines.csv. Ends with 1 below 95 % of all lines.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "data" / "studies" / "stress" / "lines.csv"
WANTED = 95
SETTINGS = """[run]
source = selectormlp
omit = */_modidx.py
parallel = True
patch = subprocess
data_file = {folder}/found
[report]
exclude_also =
    if TYPE_CHECKING:
"""
RUNS = {
    "tests": ["-m", "pytest", "-q", "tests"],
    "notebooks": [str(Path(sys.executable).parent / "nbdev_test"), "--n_workers", "0"],
}


def run(names: list[str], folder: Path) -> dict:
    """Run tests or notebooks, or both, and return what coverage.py says of them."""
    (folder / "settings").write_text(SETTINGS.format(folder=folder))
    coverage = [sys.executable, "-m", "coverage"]
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    for name in names:
        command = [*coverage, "run", f"--rcfile={folder / 'settings'}", *RUNS[name]]
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            print(f"the {name} failed: what did not run counts as not covered")
    for step in (["combine", "-q"], ["json", "-q", "-o", str(folder / "found.json")]):
        subprocess.run([*coverage, step[0], f"--rcfile={folder / 'settings'}", *step[1:]], cwd=ROOT, check=True)
    return json.loads((folder / "found.json").read_text())


def table_of(found: dict) -> pd.DataFrame:
    """Lines of each module, how many ran, and which did not."""
    rows = [
        (Path(path).stem, file["summary"]["num_statements"], file["summary"]["covered_lines"], file["missing_lines"])
        for path, file in found["files"].items()
    ]
    table = pd.DataFrame(rows, columns=["module", "lines", "run", "missing"])
    table = pd.concat(
        [table, pd.DataFrame([("all", table["lines"].sum(), table["run"].sum(), [])], columns=table.columns)]
    )
    return table.assign(percent=(100 * table["run"] / table["lines"].clip(lower=1)).round(1))


def main() -> int:
    """Run what was asked for, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(RUNS))
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")
    given = parser.parse_args()
    if importlib.util.find_spec("coverage") is None:
        parser.error("this check needs coverage.py, which is not installed: pip install 'coverage>=7.10'")
    with tempfile.TemporaryDirectory() as folder:
        names = [given.only] if given.only else list(RUNS)
        table = table_of(run(names, Path(folder))).assign(run_by=" and ".join(names))
    print(table[["module", "lines", "run", "percent"]].to_string(index=False))
    for row in table[table["missing"].str.len() > 0].itertuples():
        print(f"{row.module}: lines {', '.join(map(str, row.missing))} did not run")
    if given.write:
        table.drop(columns="missing").to_csv(TABLE, index=False, lineterminator="\n")
    return int(table["percent"].iloc[-1] < WANTED)


if __name__ == "__main__":
    sys.exit(main())
