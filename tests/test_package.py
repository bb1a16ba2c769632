"""What is uploaded: sdist and wheel are complete, and the wheel does its work where nothing else is installed."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
# Packages that the library imports only where they are: those of the extras, and checkouts of others' methods.
OF_EXTRAS = {
    *("nbformat", "cosg", "lassonet", "mrmr", "nsforest", "pytorch_tabnet", "spapros", "stg"),
    *("persist", "scGeneFit", "cloudpickle", "dask", "shiny", "uvicorn"),
}
MADE = re.compile(r"PKG-INFO|setup\.cfg|selectormlp\.egg-info/.*")  # what building adds to an sdist


def run(*command: str | Path, folder: Path) -> str:
    """Run a command that cannot see the checkout; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files of the checkout, but for those that only git reads."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], capture_output=True, text=True, cwd=ROOT
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if not name.startswith(".git") and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of the checkout, and the wheel of the sdist, each built in an environment of its own."""
    checkout, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in tracked:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    run(sys.executable, "-m", "build", "--outdir", out, folder=checkout)
    return out


def test_the_sdist_is_the_checkout(built: Path, tracked: list[str]) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {name for name in names if not MADE.fullmatch(name)} == set(tracked), "MANIFEST.in says what an sdist holds"


def test_the_wheel_holds_the_library_the_chapters_and_the_example_data(built: Path, tracked: list[str]) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    places = {"selectormlp/": "selectormlp/", "nbs/": "selectormlp/chapters/", "data/": "selectormlp/example_data/"}
    wanted = {new + name.removeprefix(old) for name in tracked for old, new in places.items() if name.startswith(old)}
    assert names == wanted, "setup.py says what a wheel holds"


def test_the_index_can_show_what_is_uploaded(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), folder=built)
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert len(links) > 10 and not [link for link in links if not link.startswith(("https://", "#"))]


def link_requirements(site: Path, wanted: str) -> None:
    """Link what a package asks for from this environment into another, and nothing else.

    So an environment is made in a second that holds what an installation from the index would bring.
    """
    missing, seen = [Requirement(wanted)], set()
    while missing:
        asked = missing.pop()
        if str(asked) in seen:
            continue
        seen.add(str(asked))
        known = [*metadata.distributions(name=asked.name, path=[str(site)]), *metadata.distributions(name=asked.name)]
        assert known, f"{asked} is not installed here"
        for top in {path.parts[0] for path in known[0].files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(known[0].locate_file(top)))
        for child in map(Requirement, known[0].requires or []):
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in {"", *asked.extras}):
                child.marker = None
                missing.append(child)


def install(folder: Path, wheels: Path, extra: str) -> Path:
    """Make an environment with the wheel and what it asks for; return the folder of its programs."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (wheel,) = wheels.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    link_requirements(site, "selectormlp" + extra)
    run(*pip, "check", folder=folder)
    home = run(python, "-c", "import selectormlp; print(selectormlp.__file__)", folder=folder)
    assert Path(home.strip()).is_relative_to(site)
    return python.parent


def imported_packages() -> set[str]:
    """Name the packages of others that the library imports, also inside functions."""
    nodes = [node for path in (ROOT / "selectormlp").glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"selectormlp"}


def test_the_main_job_needs_nothing_but_what_the_wheel_asks_for(built: Path, tmp_path: Path) -> None:
    programs = install(tmp_path / "environment", built, "")
    settings = ["--label-key", "cell_type", "--n-genes", "20", "--page", "false", "--out", "panel.csv"]
    run(programs / "selectormlp", "select", "pancreas", *settings, folder=tmp_path)
    assert len((tmp_path / "panel.csv").read_text().splitlines()) == 21
    find = "import sys; from importlib.util import find_spec; print(*(n for n in sys.argv[1:] if not find_spec(n)))"
    absent = run(programs / "python", "-c", find, *sorted(imported_packages()), folder=tmp_path).split()
    assert set(absent) <= OF_EXTRAS, "the library imports what settings.ini does not require"


ONE_CHAPTER = """
from selectormlp import book, site

chapters = book._book_chapters()
book._book_chapters = lambda: chapters[1:2]
book.run_book("pancreas", "cell_type", "out")
print(*(chapter.stem for chapter in chapters))
"""


def test_the_book_runs_from_an_installed_wheel(built: Path, tmp_path: Path, tracked: list[str]) -> None:
    programs = install(tmp_path / "environment", built, "[book]")
    chapters = run(programs / "python", "-c", ONE_CHAPTER, folder=tmp_path).split()
    assert chapters[1] == "10_models" and {f"nbs/{chapter}.ipynb" for chapter in chapters} < set(tracked)
    assert (tmp_path / "out" / "notebooks" / "10_models.ipynb").is_file()
    assert (tmp_path / "out" / "site" / "index.html").is_file()
