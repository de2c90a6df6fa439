"""Texts of recordings: ``texts.tsv`` beside them, one line each: file name without its ending, tab, words."""

import re
from pathlib import Path

__all__ = ["normalize", "read_texts"]

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def read_texts(folder: Path) -> dict[Path, str]:
    """Recording -> what is said, for every ``texts.tsv`` under a folder; lines without words are left out."""
    found = {}
    for table in sorted(folder.rglob("texts.tsv")):
        for line in table.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition("\t")
            files = [p for p in table.parent.glob(f"{name}.*") if p.suffix != ".tsv"] if name else []
            if files and (words := normalize(text)):
                found[files[0]] = words
    return found


def normalize(text: str) -> str:
    """Lower-case words without punctuation; single digits are spelled, since they are spoken.

    >>> normalize("Press 1, or hang up.")
    'press one or hang up'
    """
    if "[" in text or "(" in text:  # a description of a sound
        return ""
    spelled = re.sub(r"\b\d\b", lambda m: _NUMBERS[int(m[0])], text.lower())
    return " ".join(re.findall(r"[a-z']+", spelled)) if not re.search(r"\d", spelled) else ""
