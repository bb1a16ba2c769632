"""Write the files that the set-up commands install from: every package with its version and its hashes.

    python -m pip install uv==0.13.9 && python tools/lock.py

Reads settings.ini and constraints.txt, asks the package index, and writes requirements.lock (the library) and
requirements-dev.lock (everything that `make test` needs). torch, and what it brings along for a GPU, is left out: which
build fits depends on the machine. Run it after a change of either file; tests/test_package.py says when.
"""

import configparser
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "requirements.lock": ("requirements",),
    "requirements-dev.lock": tuple(
        f"{name}requirements" for name in ("", "book_", "sims_", "dask_", "desk_", "docs_", "dev_")
    ),
}
OF_THE_MACHINE = re.compile(r"(torch|triton|pytorch-triton|nvidia-[\w-]+|cuda-[\w-]+)==")
BUILD = ("setuptools", "wheel")


def required(groups: tuple[str, ...]) -> list[str]:
    """List what settings.ini asks for."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    return [name for group in groups for name in settings["DEFAULT"].get(group, "").split()]


def locked(groups: tuple[str, ...]) -> str:
    """Resolve the requirements, for every system and Python that the library supports."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "asked.in"
        asked.write_text("\n".join([*required(groups), *BUILD]), encoding="utf-8")
        options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "-q"]
        command = [sys.executable, "-m", "uv", "pip", "compile", str(asked), "-c", "constraints.txt", *options]
        text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    entries = re.split(r"\n(?=\S)", text.strip())
    return "\n".join(entry for entry in entries if not OF_THE_MACHINE.match(entry)) + "\n"


def main() -> None:
    """Write both files."""
    for name, groups in GROUPS.items():
        head = "# Written by tools/lock.py from settings.ini and constraints.txt. torch is installed beside it.\n"
        (ROOT / name).write_text(head + locked(groups), encoding="utf-8")


if __name__ == "__main__":
    main()
