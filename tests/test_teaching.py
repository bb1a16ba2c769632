"""Teaching: the plan agrees with the slides, the slides with the chapters, and the addresses with the files."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from scripts import chromium, tool

from selectormlp.signatures import _pip_install

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "nbs"
DECKS = sorted(CHAPTERS.rglob("slides_*.toml"))
PAGES = ("teaching/teaching", "teaching/exercises", "teaching/exercises_solved")
RED = "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAFCAIAAADzBuo/AAAAEUlEQVR4nGP4z8CAgRkGlSgAuUsyzg=="  # a head is all it takes


@pytest.fixture
def slides() -> ModuleType:
    """The script that makes the slides."""
    return tool("make_slides")


def text_of(name: str) -> str:
    """The Markdown and code of a chapter."""
    return "\n\n".join(cell.source for cell in nbformat.read(CHAPTERS / f"{name}.ipynb", 4).cells)


def deck(path: Path) -> dict[str, Any]:
    """The table of a deck."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def plan(text: str, heading: str) -> list[tuple[int, int, str]]:
    """The rows of a plan: first minute, last minute, and the exercises."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+)–(\d+) \|[^|]*\|[^|]*\|([^|]*)\|", section, re.MULTILINE)
    return [(int(first), int(last), exercise.strip()) for first, last, exercise in rows]


@pytest.mark.parametrize(("heading", "end"), [("90 minutes", 90), ("Three hours", 180)])
def test_a_plan_has_no_gap_and_ends_on_time(heading: str, end: int) -> None:
    rows = plan(text_of("teaching/teaching"), heading)
    assert rows[0][0] == 0 and rows[-1][1] == end
    assert [first for first, _, _ in rows[1:]] == [last for _, last, _ in rows[:-1]]


def test_the_slides_keep_the_minutes_of_the_plan() -> None:
    slides = deck(CHAPTERS / "teaching" / "slides_90_minutes.toml")["slides"]
    minutes = [slide["minute"] for slide in slides]
    assert minutes == sorted(minutes) and minutes[0] == 0 and minutes[-1] < 90
    exercises = {slide["title"][-1]: slide["minute"] for slide in slides if "exercise" in slide["title"]}
    rows = plan(text_of("teaching/teaching"), "90 minutes")
    for number, minute in exercises.items():
        assert [number] == [exercise for first, last, exercise in rows if first <= minute < last], number
    assert sorted(exercises) == sorted(exercise for _, _, exercise in rows if exercise)


@pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
def test_everything_on_the_slides_is_in_the_chapters(slides: ModuleType, path: Path) -> None:
    for slide in deck(path)["slides"]:
        text = slides.slide_text(CHAPTERS, slide)
        assert text.startswith(f"## {slide['title']}\n") and slide["notes"].endswith((".", "?"))
        assert "](" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL), "a link would lead nowhere"


def chapter(folder: Path) -> Path:
    """Write a small chapter."""
    output = new_output("stream", name="stdout", text="three\n")
    picture = new_output("display_data", data={"image/png": RED})
    text = "One thing. Another [thing](x.ipynb), and $a < b$.\n\n- first\n- second"
    text += "\n\n$$c^2$$ {#eq-one}\n\nIn @eq-one, more."
    cells = [
        new_markdown_cell("# A chapter\n\n> A line"),
        new_markdown_cell(text),
        new_code_cell("#| echo: false\na = 1\nb = 2\nprint(a + b)", outputs=[output]),
        new_code_cell('#| label: fig-red\n#| fig-alt: "A red box"\nplot()', outputs=[picture]),
    ]
    nbformat.write(new_notebook(cells=cells), folder / "01_small.ipynb")
    return folder


def test_each_kind_of_thing_can_be_picked(slides: ModuleType, tmp_path: Path) -> None:
    cells = slides.chapter_cells(chapter(tmp_path) / "01_small.ipynb")
    assert slides.pick_text(cells, "One thing") == "One thing."
    assert slides.pick_text(cells, "One thing", more=1) == "One thing. Another thing, and $a < b$."
    assert slides.pick_text(cells, "In @eq-one") == "In the formula above, more."
    assert slides.PICKS["item"](cells, "second") == "- second"
    assert slides.pick_formula(cells, "c^2") == "$$c^2$$"
    assert slides.pick_code(cells, "b = 2") == "```python\na = 1\nb = 2\nprint(a + b)\n```"
    assert slides.pick_code(cells, "b = 2", lines=(2, 2)) == "```python\nb = 2\n```"
    assert slides.pick_output(cells, "b = 2") == "```text\nthree\n```"
    assert 'class="wide"' in slides.pick_figure(cells, "fig-red") and 'alt="A red box"' in slides.pick_figure(
        cells, "fig-red"
    )


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        ({"text": "gone"}, "'gone' is in the chapter 0 times"),
        ({"text": "thing"}, "'thing' is in the chapter 2 times"),
        ({"figure": "fig-blue"}, "fig-blue.* 0 times"),
        ({"output": "plot()"}, "shows nothing"),
    ],
)
def test_what_is_no_longer_in_a_chapter_stops_the_slides(
    slides: ModuleType, tmp_path: Path, wanted: dict[str, str], fault: str
) -> None:
    slide = {"title": "T", "minute": 0, "notes": "N.", "chapter": "01_small", "show": [wanted]}
    with pytest.raises(slides.SlideError, match=f"slide 'T', chapter 01_small: .*{fault}"):
        slides.slide_text(chapter(tmp_path), slide)


def test_a_deck_asks_nothing_of_another_site_and_says_its_notes(slides: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("pyreveal", reason="the package that carries reveal.js")
    show = [{"text": "Another"}, {"formula": "c^2"}, {"figure": "fig-red"}, {"code": "b = 2"}]
    slide = {"title": "T", "minute": 7, "notes": "Say it.", "chapter": "01_small", "show": show}
    page = slides.deck_page(chapter(tmp_path), {"title": "Small", "slides": [slide, slide]})
    assert page.count("<section") == 4 and page.count('<aside class="notes">') == 2  # nbconvert nests each in another
    assert "<strong>Minute 7.</strong> Say it." in page and "<title>Small</title>" in page
    assert page.count("<math") == 4 and "$" not in page and "formula0" not in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert "mathjax" not in page.lower() and "require" not in page and "jquery" not in page.lower()
    assert '<a href="../small.html">A chapter</a>' in page


def test_the_browser_finds_what_does_not_fit_on_a_slide(slides: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("pyreveal", reason="the package that carries reveal.js")
    check_site = tool("check_site")
    executable = chromium()
    shutil.copy(CHAPTERS / "icon.svg", tmp_path / "icon.svg")
    (tmp_path / "sitemap.xml").write_text("<loc>https://example.org/tiny/index.html</loc>", encoding="utf-8")
    good = {"title": "T", "minute": 0, "notes": "N.", "chapter": "01_small", "show": [{"text": "One thing"}]}
    line = '[[slides]]\ntitle = "{}"\nminute = 0\nnotes = "N."\nchapter = "01_small"\nshow = [{}]\n'
    table = 'title = "Tiny"\n' + line.format("T", '{text = "One thing"}')
    table += line.format("Too long", ", ".join(['{text = "One thing"}'] * 16))
    (chapter(tmp_path) / "slides_tiny.toml").write_text(table, encoding="utf-8")
    assert slides.make_slides(tmp_path, tmp_path / "slides") == [tmp_path / "slides" / "tiny.html"]
    assert deck(tmp_path / "slides_tiny.toml")["slides"][0] == good
    faults = check_site.look_at_decks(tmp_path, tmp_path / "pictures", executable)
    assert {page for page, _ in faults} == {"slides/tiny.html, slide 2"}
    assert any("does not fit on the slide" in fault for _, fault in faults)
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"slides_tiny_01.jpg", "slides_tiny_02.jpg"}


def settings() -> dict[str, str]:
    """The settings of the project."""
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


@pytest.mark.parametrize("page", PAGES)
def test_the_addresses_of_colab_and_binder_lead_to_a_notebook(page: str) -> None:
    text, known = text_of(page), settings()
    project = f"{known['user']}/{known['repo']}"
    colab = re.findall(r"https://colab\.research\.google\.com/github/([\w-]+/[\w-]+)/blob/([\w-]+)/([^\s)]+)", text)
    binder = re.findall(r"https://mybinder\.org/v2/gh/([\w-]+/[\w-]+)/([\w-]+)\?urlpath=lab/tree/([^\s)]+)", text)
    assert colab and binder
    for repository, branch, path in colab + binder:
        assert (repository, branch) == (project, known["branch"])
        assert path == "nbs/teaching/exercises.ipynb" and (ROOT / path).is_file()
    assert len(colab) == text.count("colab.research") and len(binder) == text.count("mybinder.org")
    assert "![" not in text and "shields.io" not in text


def first_cell() -> str:
    """The first cell of code of the students' notebook."""
    cells = nbformat.read(CHAPTERS / "teaching" / "exercises.ipynb", 4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def test_the_exercises_install_the_library_in_colab_only() -> None:
    condition, line = first_cell().split("\n")[-2:]
    assert condition.startswith('if "google.colab" in sys.modules:')
    assert line == f"    %pip install -q {_pip_install().removeprefix('pip install ')}"


def run_as_in_colab(cell: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a cell as Colab runs it, and return what it asks of pip instead of asking it."""
    from IPython.core.interactiveshell import InteractiveShell

    asked: list[str] = []
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    shell = InteractiveShell()
    shell.register_magic_function(asked.append, magic_name="pip")
    shell.run_cell(cell).raise_error()
    return asked


@pytest.mark.slow
def test_the_first_cell_installs_the_library_into_a_new_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The address is replaced by this checkout, and what the library needs is that of this environment: no network."""
    (asked,) = run_as_in_colab(first_cell(), monkeypatch)
    verb, *options, what = shlex.split(asked)
    name, _, address = what.partition(" @ ")
    known = settings()
    assert (verb, options, name) == ("install", ["-q"], known["lib_name"])
    assert address in ("", f"git+{known['git_url']}"), "neither PyPI nor this repository"
    ours = [str(ROOT / place) for place in ("settings.ini", "setup.py", "README.md", "LICENSE", "MANIFEST.in")]
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "selectormlp", checkout / "selectormlp", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("nbs", "data"):
        shutil.copytree(ROOT / folder, checkout / folder)
    for path in ours:
        shutil.copy(path, checkout)
    venv.create(tmp_path / "new", with_pip=False)
    new = tmp_path / "new" / "bin" / "python"
    place = subprocess.run(
        [new, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    needs = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", place]
    source = f"{name} @ {checkout.as_uri()}"
    subprocess.run([sys.executable, "-m", "pip", verb, *options, *needs, source], check=True)
    code = "import selectormlp, selectormlp.exercises as e; print(selectormlp.__file__, e.Exercises().raw.n_obs)"
    around = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    around["PYTHONPATH"] = os.pathsep.join([place, sysconfig.get_path("purelib")])  # its own copy comes first
    done = subprocess.run([new, "-c", code], cwd=tmp_path, env=around, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(place) and int(done.stdout.split()[-1]) > 1000


@pytest.mark.parametrize("path", [*sorted(CHAPTERS.rglob("*.ipynb")), *sorted(ROOT.glob("*.md"))], ids=lambda p: p.stem)
def test_every_page_installs_from_the_one_source(path: Path) -> None:
    if ".ipynb_checkpoints" not in path.parts:
        text = path.read_text(encoding="utf-8")
        assert tool("make_install").with_source(text) == text, "run make export"


@pytest.mark.parametrize("package", ["selectormlp{extra}", "selectormlp{extra} @ git+https://example.org/r"])
def test_one_constant_switches_all_lines(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from selectormlp import signatures

    with_source = tool("make_install").with_source
    before = "a `pip install selectormlp jupyterlab`, %pip install -q 'selectormlp @ git+https://old.org/x', "
    before += r'pip install \"selectormlp[desk]\"", pip install selectormlp==0.1.0, pip install . selectormlp'
    monkeypatch.setattr(signatures, "_PACKAGE", package)
    plain, desk = (f"'{package.format(extra=extra)}'" for extra in ("", "[desk]"))
    after = f'a `pip install {plain} jupyterlab`, %pip install -q {plain}, pip install {desk}", '
    after += "pip install selectormlp==0.1.0, pip install . selectormlp"
    assert with_source(before) == after == with_source(after)
    assert signatures._pip_install("desk") == f"pip install {desk}"


def test_binder_installs_the_library_with_its_constraints_and_extras_that_exist() -> None:
    folder = ROOT / "binder"
    assert {path.name for path in folder.iterdir()} == {"runtime.txt", "requirements.txt", "postBuild"}
    assert (folder / "postBuild").stat().st_mode & 0o100, "Binder runs it"
    known = settings()
    version = re.fullmatch(r"python-(3\.\d+)\n", (folder / "runtime.txt").read_text(encoding="utf-8"))
    (matrix,) = re.findall(r"^PYTHONS = \((.+)\)$", (ROOT / "tools" / "matrix.py").read_text(encoding="utf-8"), re.M)
    assert version and f'"{version[1]}"' in matrix
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(">=")[0] for line in lines if not line.startswith("#")] == ["uv"]
    script = (folder / "postBuild").read_text(encoding="utf-8")
    assert script.startswith("#!/bin/bash\n") and "set -euo pipefail" in script
    (install,) = [shlex.split(line) for line in script.splitlines() if "pip install" in line]
    assert (ROOT / install[install.index("--constraint") + 1]).is_file()
    extras = re.fullmatch(r"\.\[([\w,]+)\]", install[-1])
    assert extras and all(f"{extra}_requirements" in known for extra in extras[1].split(","))
