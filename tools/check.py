"""Check everything that has to hold before a change is accepted; pytest comes last.

All are run, also after one failed; the last line says which failed, and which this machine cannot make. Name some to
run only those; `make check` asks for the five that end within minutes:
    python tools/check.py lint types sync readme quick
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
AT_ONCE = "2"  # notebooks, and tests, that run at the same time


def surroundings() -> dict[str, str]:
    """Make the environment of every check: this environment's programs, and one thread for each process.

    Small networks gain nothing from a second thread, and lose much where the threads of several processes compete. And
    what Python compiles is kept, although the machine may ask not to: hundreds of processes import the same packages.
    """
    programs = os.pathsep.join([str(Path(PYTHON).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PATH": programs, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}


def run(*command: str, folder: Path = ROOT, environment: dict[str, str] | None = None) -> bool:
    """Run a command, in an environment with some changes, and say whether it went well."""
    return subprocess.run(command, cwd=folder, env=surroundings() | (environment or {})).returncode == 0


def check_lint() -> bool:
    """Ruff reads every Python file and notebook of the repository, and would lay out none of them differently."""
    formatted = run(PYTHON, "-m", "ruff", "format", "--quiet", "--check", ".")
    return run(PYTHON, "-m", "ruff", "check", "--quiet", ".") and formatted


def check_workflows() -> bool:
    """Workflows and forms of GitHub are well formed, and no workflow asks for more rights than it needs."""
    kinds = {"workflows/*.yml": "workflows", "ISSUE_TEMPLATE/[0-9]*.yml": "issue-forms"}
    kinds["ISSUE_TEMPLATE/config.yml"] = "issue-config"
    well_formed = []
    for pattern, schema in kinds.items():
        files = [str(path) for path in sorted((ROOT / ".github").glob(pattern))]
        well_formed.append(run("check-jsonschema", "--builtin-schema", f"vendor.github-{schema}", *files))
    return run("zizmor", "--offline", "--quiet", ".") and all(well_formed)


def check_types() -> bool:
    """Mypy reads the library and the scripts."""
    return run(PYTHON, "-m", "mypy")


def tree(folder: Path) -> dict[str, bytes]:
    """Read the notebooks and the library of a checkout."""
    paths = [path for kind in ("nbs/*.ipynb", "nbs/*/*.ipynb", "selectormlp/*.py") for path in folder.glob(kind)]
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


def check_notebooks() -> bool:
    """`nbdev_test` runs every chapter, with its samples."""
    paths = [str(path) for kind in ("[!_]*.ipynb", "[!._]*/[!_]*.ipynb") for path in sorted((ROOT / "nbs").glob(kind))]
    return run(PYTHON, "tools/run_chapter.py", "--at-once", AT_ONCE, *paths)


def check_site() -> bool:
    """The site builds without a network; no link is broken and nothing is asked of another site."""
    return run(PYTHON, "tools/build_site.py")


def check_browser() -> bool | None:
    """Every page of the site as Chromium shows it; without Chromium on this machine the pages are not opened."""
    status = subprocess.run([PYTHON, "tools/check_site.py"], cwd=ROOT, env=surroundings()).returncode
    return None if status == SKIPPED else status == 0


def run_tests(*options: str, **environment: str) -> bool:
    """Run pytest, with two tests at the same time."""
    return run(PYTHON, "-m", "pytest", "-q", "-n", AT_ONCE, "--dist", "worksteal", *options, environment=environment)


def check_quick() -> bool:
    """The tests that are not marked slow."""
    return run_tests("-m", "not slow", "tests")


def check_numerics() -> bool:
    """What may rest on rounding, as an old processor rounds (torch without AVX)."""
    return run_tests("-m", "numerics", "tests", ATEN_CPU_CAPABILITY="default")


def check_tests() -> bool:
    """All tests, as this processor rounds and on one thread."""
    return run_tests("--durations=20", "tests")


CHECKS: dict[str, Callable[[], bool | None]] = {
    "lint": check_lint,
    "workflows": check_workflows,
    "types": check_types,
    "sync": check_sync,
    "readme": check_readme,
    "notebooks": check_notebooks,
    "site": check_site,
    "browser": check_browser,
    "numerics": check_numerics,
    "tests": check_tests,
}


def main(names: list[str]) -> int:
    """Run the named checks, or all."""
    known = CHECKS | {"quick": check_quick}  # which are some of the tests
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"there is no check {unknown[0]!r}; the checks are: {', '.join(known)}")
        return 2
    results = {}
    for name in [name for name in known if name in names] or CHECKS:
        print(f"== {name}: {(known[name].__doc__ or '').splitlines()[0]}", flush=True)
        start = time.monotonic()
        results[name] = {True: "passed", False: "FAILED", None: "SKIPPED"}[known[name]()]
        print(f"== {name}: {results[name]} in {time.monotonic() - start:.0f} s", flush=True)
    failed, skipped = ([name for name, result in results.items() if result == kind] for kind in ("FAILED", "SKIPPED"))
    summary = f"checks failed: {', '.join(failed)}" if failed else "all checks passed"
    print(summary + (f"; skipped on this machine: {', '.join(skipped)}" if skipped else ""), flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
