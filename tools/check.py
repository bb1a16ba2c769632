"""Check everything that has to hold before a change is accepted; pytest comes last.

All are run, also after one failed; the last line says which failed, and which this machine cannot make. Name some to
run only those:
    python tools/check.py lint types sync
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, STDOUT

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
SKIPPED = 77  # the exit status of a check that this machine cannot make
AT_ONCE = "2"  # notebooks, and tests, that run at the same time


def surroundings() -> dict[str, str]:
    """Make the environment of every check: this environment's programs, and one thread for each process.

    Small networks gain nothing from a second thread, and lose much where the threads of several processes compete. And
    what Python compiles is kept, although the machine may ask not to: hundreds of processes import the same packages.
    """
    programs = os.pathsep.join([str(Path(PYTHON).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PATH": programs, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}


def run(*command: str, folder: Path = ROOT) -> bool:
    """Run a command and say whether it went well."""
    return subprocess.run(command, cwd=folder, env=surroundings()).returncode == 0


def check_lint() -> bool:
    """Ruff reads every Python file of the repository."""
    return run(PYTHON, "-m", "ruff", "check", "--quiet", ".")


def check_workflows() -> bool:
    """The workflows of GitHub are well formed, and ask for no more rights than they need."""
    workflows = [str(path) for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
    well_formed = run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    return run("zizmor", "--offline", "--quiet", ".") and well_formed


def check_types() -> bool:
    """Mypy reads the library and the scripts."""
    return run(PYTHON, "-m", "mypy")


def tree(folder: Path) -> dict[str, bytes]:
    """Read the notebooks and the library of a checkout."""
    paths = [path for kind in ("nbs/*.ipynb", "selectormlp/*.py") for path in folder.glob(kind)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def check_sync() -> bool:
    """Export and clean a copy of the checkout: nothing may change. The checkout itself is left as it is."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("settings.ini", "setup.py", "_quarto.yml"):
            shutil.copy(ROOT / name, copy / name)
        for name in ("nbs", "selectormlp"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_*"))
        before = tree(copy)
        for module in set(before) - {f"selectormlp/__{name}__.py" for name in ("init", "main")}:  # written by hand
            if module.endswith(".py"):
                (copy / module).unlink()
        if not (run("nbdev_export", folder=copy) and run("nbdev_clean", folder=copy)):
            return False
        after = tree(copy)
    changed = sorted(name for name in set(before) | set(after) if before.get(name) != after.get(name))
    for name in changed:
        print(f"{name} is not in step with the notebooks; run: make export")
    return not changed


def check_readme() -> bool:
    """README.md and the students' exercises are what the notebooks make them."""
    readme = run(PYTHON, "tools/make_readme.py", "--check")
    return run(PYTHON, "tools/make_exercises.py", "--check") and readme


def run_notebook(path: Path) -> tuple[str, bool, float]:
    """Run a chapter, with its samples, in a process of its own; print what it says if it fails."""
    start = time.monotonic()
    command = [PYTHON, "tools/run_chapter.py", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=surroundings(), text=True, stdout=PIPE, stderr=STDOUT)
    if done.returncode:
        print(done.stdout, flush=True)
    return path.stem, done.returncode == 0, time.monotonic() - start


def check_notebooks() -> bool:
    """Every chapter runs; the slowest are listed first."""
    paths = sorted((ROOT / "nbs").glob("*.ipynb"))
    with ThreadPoolExecutor(int(AT_ONCE)) as pool:
        results = sorted(pool.map(run_notebook, paths), key=lambda result: -result[2])
    for name, passed, seconds in results:
        print(f"{name}: {seconds:.0f} s{'' if passed else ', FAILED'}")
    return all(passed for _, passed, _ in results)


def check_site() -> bool:
    """The site builds without a network; no link is broken and nothing is asked of another site."""
    return run(PYTHON, "tools/build_site.py")


def check_browser() -> bool | None:
    """Every page of the site as Chromium shows it; without Chromium on this machine the pages are not opened."""
    status = subprocess.run([PYTHON, "tools/check_site.py"], cwd=ROOT, env=surroundings()).returncode
    return None if status == SKIPPED else status == 0


def check_tests() -> bool:
    """The tests."""
    return run(PYTHON, "-m", "pytest", "-q", "-n", AT_ONCE, "--dist", "worksteal", "--durations=20", "tests")


CHECKS: dict[str, Callable[[], bool | None]] = {
    "lint": check_lint,
    "workflows": check_workflows,
    "types": check_types,
    "sync": check_sync,
    "readme": check_readme,
    "notebooks": check_notebooks,
    "site": check_site,
    "browser": check_browser,
    "tests": check_tests,
}


def main(names: list[str]) -> int:
    """Run the named checks, or all."""
    unknown = sorted(set(names) - set(CHECKS))
    if unknown:
        print(f"there is no check {unknown[0]!r}; the checks are: {', '.join(CHECKS)}")
        return 2
    results = {}
    for name in [name for name in CHECKS if name in names or not names]:
        print(f"== {name}: {(CHECKS[name].__doc__ or '').splitlines()[0]}", flush=True)
        start = time.monotonic()
        results[name] = {True: "passed", False: "FAILED", None: "SKIPPED"}[CHECKS[name]()]
        print(f"== {name}: {results[name]} in {time.monotonic() - start:.0f} s", flush=True)
    failed, skipped = ([name for name, result in results.items() if result == kind] for kind in ("FAILED", "SKIPPED"))
    summary = f"checks failed: {', '.join(failed)}" if failed else "all checks passed"
    print(summary + (f"; skipped on this machine: {', '.join(skipped)}" if skipped else ""), flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
