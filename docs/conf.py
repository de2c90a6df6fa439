"""How Sphinx builds the site: `make docs`. The pages of the reference are written here."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import netfit

project, author = "netfit", "the netfit authors"
release = netfit.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py"]
html_theme = "furo"
html_title = "netfit"
suppress_warnings = ["ref.python"]  # a short name in an annotation, such as Op, may stand in two rooms
myst_heading_anchors = 3
default_role = "code"  # `name` in a docstring is code, as everywhere else
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_attr_annotations = False  # types stand in the signature
python_maximum_signature_line_length = 100
# What reStructuredText would take for a substitution or the beginning of emphasis, outside of code.
MARKUP = re.compile(r"(`[^`]*`)|\||(?<=, )\*")


def _rooms():
    """Every module of the package whose name is public and that says what it offers."""
    for found in pkgutil.walk_packages(netfit.__path__, "netfit."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            module = importlib.import_module(found.name)
            if getattr(module, "__all__", None):
                yield module


def _reference(app):
    for module in _rooms():
        name = module.__name__
        for public in (getattr(module, public) for public in module.__all__):
            if inspect.isclass(public):
                public.__module__ = name  # annotations then link to the name that users import
        text = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :members:\n   :show-inheritance:\n"
        page = Path(app.srcdir, "reference", f"{name}.rst")
        if not page.exists() or page.read_text() != text:  # an unchanged page is not built again
            page.write_text(text)


def _plain(app, what, name, obj, options, lines):
    lines[:] = [line if ">>>" in line else MARKUP.sub(lambda m: m[1] or f"\\{m[0]}", line) for line in lines]


def _skip(app, what, name, obj, skip, options):
    return True if name.endswith("_request") else None  # scikit-learn's metadata routing


def setup(app):
    app.connect("builder-inited", _reference)
    app.connect("autodoc-process-docstring", _plain, priority=400)  # before the sections are read
    app.connect("autodoc-skip-member", _skip)
