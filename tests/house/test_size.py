"""The size budget: one idea a file, and functions that fit on a screen."""

import ast
import statistics
from pathlib import Path

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def percentile(values, share):
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def code_lines(function):
    """Lines of a function without its docstring."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    text = first.end_lineno - first.lineno + 1 if documented and isinstance(first.value.value, str) else 0
    return function.end_lineno - function.lineno + 1 - text


def test_files_are_small(root):
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in Path(root, "src").rglob("*.py")}
    largest = sorted(lines, key=lines.__getitem__)[-3:]
    assert statistics.median(lines.values()) <= 150
    assert percentile(lines.values(), 0.95) <= 450, largest
    assert max(lines.values()) <= 800, largest


def test_functions_are_short(trees):
    lengths = {
        f"{path}:{node.lineno} {node.name}": code_lines(node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTION)
    }
    longest = sorted(lengths.items(), key=lambda item: -item[1])[:5]
    assert percentile(lengths.values(), 0.95) <= 45, longest
    assert longest[0][1] <= 80, longest
