"""The public names of every room: few, sorted, documented and annotated."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

MOST = 15


def bound_names(tree, package):
    """Public names that a room's top file defines; of its imports, those from its own private modules."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and package:
            names |= {item.asname or item.name for item in node.names}
    return {name for name in names if not name.startswith("_")}


def test_all_is_sorted_short_and_true(room, trees):
    package = f"{room}/__init__.py" in trees
    tree = trees[f"{room}/__init__.py" if package else f"{room}.py"]
    stub = Path(importlib.import_module(f"netfit.{room}").__file__).with_name("__init__.pyi")
    if package and stub.exists():  # names that are imported on first use
        tree = ast.parse(stub.read_text(encoding="utf-8"))
    listed = importlib.import_module(f"netfit.{room}").__all__
    assert list(listed) == sorted(listed)
    assert 1 <= len(listed) <= MOST
    assert set(listed) == bound_names(tree, package)


def test_the_room_says_what_it_is_for(room):
    assert (importlib.import_module(f"netfit.{room}").__doc__ or "").strip()


def members(obj):
    """A class's own public methods and properties, as functions."""
    for name, member in vars(obj).items():
        if not name.startswith("_") or name == "__init__":
            member = getattr(member, "__func__", member)  # classmethod, staticmethod
            member = member.fget if isinstance(member, property) else getattr(member, "func", member)
            # What dataclass or Protocol put there was not written here: its file is another one, or none.
            if inspect.isfunction(member) and member.__code__.co_filename == inspect.getfile(obj):
                yield name, member


def unannotated(function):
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    missing = [p.name for p in signature.parameters.values() if p.annotation is empty and p.name not in ("self", "cls")]
    return missing + ["return"] * (signature.return_annotation is empty)


def documented(obj):
    text = inspect.getdoc(obj) or ""
    # dataclass writes "Name(field: type, ...)" when the author wrote nothing
    return bool(text.strip()) and not (inspect.isclass(obj) and text.startswith(f"{obj.__name__}("))


def faults(name, obj):
    if not documented(obj):
        yield f"{name} has no docstring"
    if inspect.isfunction(obj) and (missing := unannotated(obj)):
        yield f"{name} does not annotate {', '.join(missing)}"
    if inspect.isclass(obj):
        for method, function in members(obj):
            inherited = inspect.getdoc(getattr(obj, method, None))
            if method != "__init__" and not (documented(function) or inherited):
                yield f"{name}.{method} has no docstring"
            if missing := unannotated(function):
                yield f"{name}.{method} does not annotate {', '.join(missing)}"


def test_every_public_name_is_documented_and_annotated(room):
    module = importlib.import_module(f"netfit.{room}")
    objects = {name: getattr(module, name) for name in module.__all__}
    # Constants are documented where they are defined; only functions and classes carry a docstring of their own.
    found = [
        fault
        for name, obj in objects.items()
        if inspect.isfunction(obj) or inspect.isclass(obj)
        for fault in faults(name, obj)
    ]
    assert found == []


class Undocumented:
    def method(self, x):
        return x


@pytest.mark.parametrize("obj", [Undocumented, lambda x: x])
def test_the_check_finds(obj):
    assert len(list(faults("it", obj))) >= 2
