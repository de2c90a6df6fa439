"""``python -m benchmarks [name ...]``: run the named benchmarks, or all of them."""

import importlib
import sys
from pathlib import Path

from netfit.errors import did_you_mean

# Every public module of this folder has a `main()`; data_check is no benchmark and has a make target of its own.
BENCHMARKS = sorted({path.stem for path in Path(__file__).parent.glob("[!_]*.py")} - {"data_check"})


def main(names: list[str]) -> int:
    """Run benchmarks; 2 for a name that is none."""
    for name in names:
        if name not in BENCHMARKS:
            print(f"no benchmark is called {name!r}; {did_you_mean(name, BENCHMARKS)}", file=sys.stderr)
            return 2
    for name in names or BENCHMARKS:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
