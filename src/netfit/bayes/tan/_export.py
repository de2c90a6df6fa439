"""The classifier as C: tables of small integers, additions and loads; nothing to link, nothing to multiply."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from netfit.bayes.tan._tables import layout
from netfit.errors import ConfigError

if TYPE_CHECKING:
    from netfit.bayes.tan._classifier import TANClassifier

__all__ = ["c_source"]

_HEAD = """\
/* Tree-augmented naive Bayes classifier, written by netfit: {features} features, {classes} classes, {bits}-bit tables.
   {name}_predict takes the number of each feature's value (0, 1, ... in the order of TANClassifier.encode) and returns
   the number of the class; {unknown} */
#include <stdint.h>

enum {{ FEATURES = {features}, CLASSES = {classes}, ROWS = {rows} }};

"""

_BODY = """\
{fetch}int {name}_predict(const {code} *x)
{{
    {entry} row[FEATURES];
    {entry} base = 0;
    uint32_t best = UINT32_MAX;
    int known = 0, chosen = 0;
    for (int i = 0; i < FEATURES; i++) {{
        uint32_t group = first_group[i];
        if (x[i] >= values[i]) {{
            {missing}
        }}
        if (parent[i] < FEATURES) {{
            if (x[parent[i]] >= values[parent[i]]) {{
                {missing}
            }}
            group += x[parent[i]];
        }}
        row[known++] = group_row[group] + x[i];
    }}
    for (int c = 0; c < CLASSES; c++) {{
        uint32_t sum = prior[c];
        for (int k = 0; k < known; k++)
            sum += {load};
        if (sum < best) {{
            best = sum;
            chosen = c;
        }}
        base += ROWS;
    }}
    return chosen;
}}
"""

_FETCH = """\
/* Entries share bytes: the low bits of an entry's number are its place in the byte. */
static uint32_t fetch({entry} entry)
{{
    return (uint32_t)(table[entry >> {log}] >> ((entry & {last}) << {shift})) & {mask};
}}

"""


def c_source(classifier: "TANClassifier", name: str = "tan", packed: bool = False) -> str:
    """C99 source of a fitted classifier with quantized tables.

    Args:
        classifier: fitted with `bits`.
        name: prefix of the function.
        packed: store several entries in a byte where they are of 1, 2 or 4 bits; a load then costs two shifts.

    Raises:
        ConfigError: the tables are not quantized, or `name` is no C identifier.
    """
    if classifier.bits is None:
        raise ConfigError("the tables are floating point: fit with bits=(integer bits, fractional bits) first")
    if not (name.isidentifier() and name.isascii()):
        raise ConfigError(f"name {name!r} is no C identifier: use letters, digits and underscores")
    total = sum(classifier.bits)
    slot = next(s for s in (1, 2, 4, 8) if s >= total) if packed else 8
    sizes = np.array([len(c) for c in classifier.categories_])
    plan = layout(sizes, [(int(p),) for p in classifier.parents_])
    classes = len(classifier.classes_)
    step = 2.0 ** classifier.bits[1]
    table = np.concatenate([t.reshape(-1, classes) for t in classifier.tables_])
    codes = np.rint(-table.T * step).astype(np.int64)  # class by class: the next class is ROWS entries on
    prior = np.rint(-classifier.class_log_prior_ * step).astype(np.int64)
    groups = plan.groups
    times = np.where(plan.parent < 0, 1, sizes[plan.parent])
    parent = np.where(plan.parent < 0, len(sizes), plan.parent)
    entry = _unsigned(codes.size)
    arrays = [
        ("parent", parent, _unsigned(len(sizes))),
        ("values", sizes, _unsigned(int(sizes.max()))),
        ("first_group", np.concatenate([[0], times.cumsum()[:-1]]), _unsigned(len(groups))),
        ("group_row", np.concatenate([[0], groups.cumsum()[:-1]]), _unsigned(plan.rows)),
        ("prior", prior, "uint8_t"),
        ("table", _pack(codes.ravel(), slot), "uint8_t"),
    ]
    unknown = "a value it does not know makes it return -1."
    missing = "return -1;"
    if classifier.handle_unknown == "uniform":
        unknown, missing = "a value it does not know says nothing.", "continue;"
    facts: dict[str, Any] = {
        "name": name, "features": len(sizes), "classes": classes, "rows": plan.rows, "bits": total, "entry": entry,
        "unknown": unknown, "missing": missing, "code": _unsigned(int(sizes.max())),
        "load": "table[base + row[k]]" if slot == 8 else "fetch(base + row[k])",
    }  # fmt: skip
    per = 8 // slot
    log = per.bit_length() - 1
    facts["fetch"] = "" if slot == 8 else _FETCH.format(
        entry=entry, log=log, last=per - 1, shift=slot.bit_length() - 1, mask=2**slot - 1
    )  # fmt: skip
    return _HEAD.format(**facts) + "".join(_array(*a) for a in arrays) + "\n" + _BODY.format(**facts)


def _unsigned(largest: int) -> str:
    return next(f"uint{b}_t" for b in (8, 16, 32) if largest < 2**b)


def _pack(codes: NDArray[np.int64], slot: int) -> NDArray[np.uint8]:
    per = 8 // slot
    padded = np.pad(codes, (0, -len(codes) % per)).reshape(-1, per)
    return np.asarray((padded << (slot * np.arange(per))).sum(axis=1), np.uint8)


def _array(name: str, values: NDArray[Any], kind: str) -> str:
    lines = [", ".join(map(str, values[i : i + 24].tolist())) for i in range(0, len(values), 24)]
    return f"static const {kind} {name}[{len(values)}] = {{\n    " + ",\n    ".join(lines) + "\n};\n"
