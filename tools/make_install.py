"""Write where the library is installed from into every page: the constant _PACKAGE of nbs/01_signatures.ipynb.

With --check nothing is written, and each line that says otherwise is listed. `selectormlp==VERSION`, which names a
release, is left alone, and so is `pip install .` of a clone.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
KINDS = ("nbs/*.ipynb", "nbs/*/*.ipynb", "*.md")
LINE = re.compile(  # in a notebook's file a double quote is written with a backslash; the quote at the end is the first
    r"(pip install (?:-\w+ )*)(\\?\"|'|)selectormlp(?:\[(\w+)\])?(?: @ git\+https?://[\w./-]+)?\2(?![\w=\[-])"
)


def with_source(text: str) -> str:
    """Put the source of the constant into every line that installs the library."""
    from selectormlp.signatures import _pip_install

    def line(found: re.Match[str]) -> str:
        return found[1] + _pip_install(found[3] or "").removeprefix("pip install ")

    return LINE.sub(line, text)


def main() -> int:
    """Read the arguments; write the pages, or list the lines that say otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; list the lines that say otherwise")
    check = parser.parse_args().check
    stale = 0
    for path in sorted(path for kind in KINDS for path in ROOT.glob(kind)):
        text = path.read_text(encoding="utf-8")
        changed = with_source(text)
        if changed == text:
            continue
        for number, (old, new) in enumerate(zip(text.splitlines(), changed.splitlines(), strict=True), 1):
            if old != new and check:
                stale += 1
                print(f"{path.relative_to(ROOT)}, line {number}: {old.strip()[:100]}; run make export")
        if not check:
            path.write_text(changed, encoding="utf-8")
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main())
