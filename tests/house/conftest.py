"""Where the source lies and which rooms it has."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "netfit"
ROOMS = sorted(
    path.stem
    for path in SOURCE.iterdir()
    if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").exists())
)


def pytest_generate_tests(metafunc):
    if "room" in metafunc.fixturenames:
        metafunc.parametrize("room", ROOMS)


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def rooms():
    return ROOMS


@pytest.fixture(scope="session")
def trees():
    """Path, from the source folder, to syntax tree of every source file."""
    return {
        str(path.relative_to(SOURCE)): ast.parse(path.read_text(encoding="utf-8"), str(path))
        for path in sorted(SOURCE.rglob("*.py"))
    }
