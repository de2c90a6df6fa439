"""``python -m netfit``: the command line without its script."""

import sys

from netfit.cli import main

if __name__ == "__main__":
    sys.exit(main())
