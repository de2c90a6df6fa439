"""Draw with matplotlib, then turn its SVG into one that belongs in the page.

matplotlib writes fixed colours and its own fonts. Here every colour of `PALETTE` becomes a CSS variable (with
the colour as fallback, so a drawing also stands alone), so that one drawing serves light and dark mode; text
stays text in the reader's own font; ids are unique within a page; the bytes depend on nothing but the data.
"""

import hashlib
import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from netfit.errors import require

__all__ = ["BEFORE", "INK", "MUTED", "PALE", "RULE", "SERIES", "clip_name", "draw"]

# Okabe and Ito, "Color Universal Design" (2008): tells apart under every common colour blindness.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#5a6b7b")
INK, MUTED, BEFORE, RULE, PALE = "#1c2127", "#59636e", "#9aa5b1", "#d9dee3", "#e4e8ec"
PALETTE = {c: f"--c{i}" for i, c in enumerate(SERIES, 1)} | {
    INK: "--ink",
    MUTED: "--muted",
    BEFORE: "--before",
    RULE: "--rule",
    PALE: "--pale",
}

# User units of the view box. A phone shows them at 0.9, a column of a desk screen at 1.2.
WIDTH = 400
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "netfit",
    "text.parse_math": False,  # a layer may be called "$x"
    "font.size": 11.5,
    "axes.titlesize": 11.5,
    "text.color": INK,
    "axes.titlecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.4,
    "legend.borderaxespad": 0.0,
    "figure.constrained_layout.h_pad": 2 / 72,
    "figure.constrained_layout.w_pad": 2 / 72,
}


def draw(height: float, paint: Callable[[Any, Any], None]) -> str:
    """Call ``paint(figure, axes)`` on an empty drawing of `WIDTH` x ``height`` user units; return its SVG."""
    matplotlib = require("matplotlib", "report")
    canvas = require("matplotlib.figure", "report")
    raw = io.StringIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Widths are guessed with matplotlib's font; the reader's browser has its own glyphs.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Too little room for the labels: drawn without the axes' exact place, not left out.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure = canvas.Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        paint(figure, figure.subplots())
        figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
    return _adapt(raw.getvalue())


def clip_name(name: str, width: int = 24) -> str:
    """Shorten a name in front, since the end of a layer's name says more; one line, no control characters.

    >>> clip_name("features.stage3.block11.conv2.depthwise")
    '…block11.conv2.depthwise'
    """
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return name if len(name) <= width else "…" + name[1 - width :]


def _adapt(raw: str) -> str:
    root = ET.fromstring(raw)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    prefix = "f" + hashlib.sha256(raw.encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', raw))
    ids = {old: f"{prefix}-{i}" for i, old in enumerate(sorted(used))}
    for element in root.iter():
        element.tag = _local(element.tag)
        element.text = element.text if element.text and element.text.strip() else None
        element.tail = None
        element.attrib = {
            _local(k): _value(_local(k), v, ids)
            for k, v in element.attrib.items()
            if not (k == "id" and v not in ids) and not v.startswith("rotate(-0 ")
        }
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    return ET.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """The name without its XML namespace; HTML knows SVG by itself."""
    return name.rpartition("}")[2]


def _value(name: str, value: str, ids: dict[str, str]) -> str:
    if name == "id":
        return ids[value]
    if name == "href":
        return "#" + ids[value[1:]]
    if name == "clip-path":
        return f"url(#{ids[value[5:-1]]})"
    if name in ("d", "x", "y", "points", "transform"):
        return re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), value).strip()
    if name == "style":
        value = re.sub(r"font-family: [^;]*(;|$)", "", value)
        return re.sub(r"#[0-9a-f]{6}", lambda m: f"var({PALETTE[m[0]]},{m[0]})" if m[0] in PALETTE else m[0], value)
    return value
