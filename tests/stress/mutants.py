"""Would the tests notice a fault? Small faults are put into four modules, one at a time, and their tests are run.

    python tests/stress/mutants.py [MODULE ...] [--write] [--folder FOLDER]

mutmut makes the faults (mutants) in a copy of the checkout: it turns a + into a -, a 1 into a 2, drops an argument, and
so on. A mutant is killed if a test of the module's own file, tests/test_MODULE.py, fails; all others are survivors or
timeouts. Every survivor is printed with its change and with the reason why no test notices it (REASONS). `--write`
writes data/studies/stress/mutants.csv and mutant_survivors.csv; `--folder` keeps the copy and the whole log, and tries
only those again that no test had killed, after the tests or the module itself were bettered.
Constants of a module, properties and dataclass fields are out of mutmut's reach.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "data" / "studies" / "stress"
MODULES = ("split", "panels", "evaluation", "masking")
MUTMUT = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()"]
SETTINGS = """[mutmut]
source_paths=selectormlp
only_mutate=selectormlp/{module}.py
pytest_add_cli_args_test_selection=tests/test_{module}.py
use_git_change_detection=false
use_setproctitle=false
"""


def argument(names: str) -> str:
    """A pattern of changes to the named arguments of a call: to their values, or that they are left out."""
    names = names.replace(" ", "|")
    return rf"\b({names})=(\([^)=]*|[^,=\]]*)\[|\[[^]]*\b({names})="


STYLING = "styling: sizes, colours and places in a figure"
DRAWING = (
    "figsize layout fontsize rotation ha shrink cmap s linewidth linewidths color padding frameon ncols markerscale loc"
    " bbox_to_anchor"
)
# Why a survivor is let live: (module.function, what was changed, reason); the first that fits is taken.
REASONS = [
    (r"\.plot_", argument(DRAWING), STYLING),
    ("plot_cell_map", r"get_cmap\(|max\(len\(names\), \[20", STYLING),
    ("", argument("stacklevel"), "which line a warning names; the calls of mutmut stand in between"),
    ("", argument("strict"), "equivalent: what is zipped has one length, or need not have"),
    ("", "keep_default_na=.False -> None", "equivalent: None is false too"),
    ("", "stable -> STABLE", "equivalent: numpy reads it in any case"),
    ("_by_lot", argument("kind"), "equivalent unless two of the 64-bit lots are the same"),
    ("draw_lots", argument("categorize"), "equivalent: a quicker or a slower way to the same numbers"),
    ("map_cells", argument("n_comps"), "equivalent: the rule of scanpy is the same"),
    ("map_cells", argument("random_state"), "the principal components of few cells are the same from any start"),
    ("map_cells", argument("category"), "no other warning begins with these words"),
    ("map_cells", "N_JOBS", "equivalent: case does not count in a filter of warnings"),
    ("_forest_judge", r"Classifier\(\[100, ", "equivalent: 100 trees are the default of scikit-learn"),
    ("score_predictions", r"axis=\[0 -> None", "equivalent in pandas 2"),
    ("compare_panels", "index -> INDEX", "equivalent: pandas reads it in any case"),
    (r"\._add", "check_invariants", "equivalent for what is right, and the tests check it themselves"),
    ("_changes", r"max\(\)\) \+ \[1 -> 2", "equivalent: points are numbered, with or without a gap"),
    ("_changes", argument("kind"), "equivalent: cells with as many changes may come in any order"),
    ("_changes|_judge_plainly", argument("minlength"), "equivalent: there is one for each already"),
    ("_gains", argument("dtype"), "equivalent, but for memory"),
    ("_judge_by_adding", argument("dtype"), "values that are no float32 differ in the 8th digit"),
    ("_gains", "filterwarnings", "torch warns once in a process, and of nothing else here"),
    ("plot_", "sort=.False -> None", "equivalent: None is false too"),
    ("plot_test_accuracy", "2f -> .2F", "equivalent: no letters are written"),
    ("plot_", r"colorbar\(picture.*ax=", "equivalent: matplotlib takes the same axes by itself"),
    ("plot_panel", r"replace\(0, \[1 -> 2", "equivalent: 0 / 2 is 0 / 1"),
]


def prepare(module: str, folder: Path) -> None:
    """A copy of the library and of the tests of one module, for mutmut to change; survivors of before live again."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "selectormlp", folder / "selectormlp", ignore=unwanted, dirs_exist_ok=True)
    (folder / "tests").mkdir(exist_ok=True)
    for name in ("conftest.py", f"test_{module}.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    (folder / "setup.cfg").write_text(SETTINGS.format(module=module))
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)  # which test reaches what: found out anew
    known = folder / "mutants" / "selectormlp" / f"{module}.py.meta"
    if known.exists():
        found = json.loads(known.read_text())
        found["exit_code_by_key"] = {name: 1 if code == 1 else None for name, code in found["exit_code_by_key"].items()}
        known.write_text(json.dumps(found))


def run_mutmut(folder: Path) -> None:
    """Make the mutants and try them, one at a time; mutmut itself checks first that the tests see a mutant at all."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    with (folder / "mutmut.log").open("w") as log:
        command = [*MUTMUT, "run", "--max-children", "1"]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"mutmut did not run: {(folder / 'mutmut.log').read_text()[-3000:]}")


def change(diff: str) -> str:
    """What a mutant changed, with a little of what stands around it: `table.sum(axis=[1 -> 2]).max()`."""
    lines = [line for line in diff.splitlines()[3:] if line[:1] in "+-"]
    old, new = (
        re.findall(r"[\w.]+|.", " ".join(line[1:].strip() for line in lines if line[0] == sign)) for sign in "-+"
    )
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    changed = [block for block in blocks if block[0] != "equal"]
    (_, i, _, j, _), (_, _, i_end, _, j_end) = changed[0], changed[-1]
    here = f"[{''.join(old[i:i_end])} -> {''.join(new[j:j_end])}]"
    return ("".join(old[max(0, i - 16) : i]) + here + "".join(old[i_end : i_end + 8])).strip()


def judged(module: str, folder: Path) -> pd.DataFrame:
    """One row per mutant: its function, what became of it, its diff and what was changed."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code

    path = Path("selectormlp") / f"{module}.py"
    found = json.loads((folder / "mutants" / f"{path}.meta").read_text())["exit_code_by_key"]
    rows = []
    with contextlib.chdir(folder):
        for name, code in found.items():
            function = re.sub(r"^.*?\.x_?", "", name.rpartition("__mutmut")[0]).strip("ǁ").replace("ǁ", ".")
            result = "killed" if code == 1 else "survived" if code in (0, 5, 33) else status_by_exit_code[code]
            rows.append((module, function, result, name, get_diff_for_mutant(name, path=path)))
    table = pd.DataFrame(rows, columns=["module", "function", "result", "name", "diff"])
    return table.assign(change=table["diff"].map(change))


def reason(mutant: pd.Series) -> str:
    """Why no test notices a mutant; "" where nobody has said."""
    for place, changed, why in REASONS:
        if re.search(place, f"{mutant['module']}.{mutant['function']}") and re.search(changed, mutant["change"]):
            return why
    return ""


def summary(mutants: pd.DataFrame) -> pd.DataFrame:
    """One row per module and one for all: how many mutants were killed, with and without the functions that draw."""
    rows = []
    for name, table in [*mutants.groupby("module", sort=False), ("all", mutants)]:
        drawing = table["function"].str.startswith("plot_")
        killed = table["result"] == "killed"
        rows.append(
            {
                "module": name,
                "mutants": len(table),
                "killed": int(killed.sum()),
                "survived": int((table["result"] == "survived").sum()),
                "timeouts": int((table["result"] == "timeout").sum()),
                "other": int((~table["result"].isin(["killed", "survived", "timeout"])).sum()),
                "share_killed": round(killed.mean(), 3),
                "share_killed_without_figures": round(killed[~drawing].mean(), 3),
            }
        )
    return pd.DataFrame(rows)


def explained(survivors: pd.DataFrame) -> pd.DataFrame:
    """Survivors by function and reason: how many, and what was changed (three of them)."""
    groups = survivors.groupby(["module", "function", "reason"], sort=False)["change"]
    table = groups.agg(mutants="size", changed=lambda changes: "; ".join(changes.unique()[:3]))
    return table.reset_index()[["module", "function", "mutants", "changed", "reason"]]


def main() -> int:
    """Try the mutants of each module, print what became of them, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; all, unless named")
    parser.add_argument("--write", action="store_true", help="write the two tables (of all modules)")
    parser.add_argument("--folder", type=Path, help="work in this folder, and leave it")
    given = parser.parse_args()
    modules = given.modules or list(MODULES)
    if set(modules) - set(MODULES):
        parser.error(f"the modules are {', '.join(MODULES)}, not {', '.join(modules)}")
    if importlib.util.find_spec("mutmut") is None:
        parser.error("this check needs mutmut, which is not installed: pip install 'mutmut>=3.8,<4'")
    with tempfile.TemporaryDirectory() as temporary:
        tables = []
        for module in modules:
            folder = (given.folder or Path(temporary)) / module
            folder.mkdir(parents=True, exist_ok=True)
            prepare(module, folder)
            run_mutmut(folder)
            tables.append(judged(module, folder))
    return report(pd.concat(tables, ignore_index=True), write=given.write)


def report(mutants: pd.DataFrame, *, write: bool) -> int:
    """Print the survivors and the table, write both if asked to; 1 if a survivor has no reason."""
    left = mutants[mutants["result"] != "killed"]
    left = left.assign(reason=left.apply(reason, axis=1) if len(left) else "")
    for _, mutant in left.iterrows():
        print(f"\n{mutant['name']}: {mutant['result']}; {mutant['reason'] or 'NO REASON'}\n{mutant['diff']}")
    print("\n" + summary(mutants).to_string(index=False))
    if write:
        TABLES.mkdir(parents=True, exist_ok=True)
        summary(mutants).to_csv(TABLES / "mutants.csv", index=False, lineterminator="\n")
        explained(left).to_csv(TABLES / "mutant_survivors.csv", index=False, lineterminator="\n")
    unexplained = int((left["reason"] == "").sum())
    print(f"{unexplained} of {len(left)} survivors have no reason" if unexplained else "every survivor has a reason")
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main())
