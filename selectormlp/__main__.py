"""`python -m selectormlp` is `selectormlp`."""

import sys

from selectormlp.cli import main

if __name__ == "__main__":
    sys.exit(main())
