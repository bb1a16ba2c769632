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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
SKIPPED = 77  # the exit status of a check that this machine cannot make


def run(*command: str, folder: Path = ROOT) -> bool:
    """Run a command with this environment's programs and say whether it went well."""
    programs = os.pathsep.join([str(Path(PYTHON).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": programs, "MPLBACKEND": "Agg"}
    return subprocess.run(command, cwd=folder, env=environment).returncode == 0


def check_lint() -> bool:
    """Ruff reads every Python file of the repository."""
    return run(PYTHON, "-m", "ruff", "check", "--quiet", ".")


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
    """README.md is what nbs/index.ipynb makes it."""
    return run(PYTHON, "tools/make_readme.py", "--check")


def check_notebooks() -> bool:
    """Every chapter runs, one after the other; the slowest are listed first."""
    return run("nbdev_test", "--n_workers", "0", "--timing")


def check_site() -> bool:
    """The site builds without a network; no link is broken and nothing is asked of another site."""
    return run(PYTHON, "tools/build_site.py")


def check_browser() -> bool | None:
    """Every page of the site as Chromium shows it; without Chromium on this machine the pages are not opened."""
    status = subprocess.run([PYTHON, "tools/check_site.py"], cwd=ROOT).returncode
    return None if status == SKIPPED else status == 0


def check_tests() -> bool:
    """The tests."""
    return run(PYTHON, "-m", "pytest", "-q", "--durations=5", "tests")


CHECKS: dict[str, Callable[[], bool | None]] = {
    "lint": check_lint,
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
