"""Words of a recording by an offline recogniser whose language is a handful of known sentences."""

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from netfit.errors import ConfigError, require

__all__ = ["Recognizer", "bigrams"]

_DISCOUNT = 0.5  # of every bigram seen; what it frees goes to the unigrams


class Recognizer:
    """PocketSphinx with a bigram language model of the sentences that may be said.

    Args:
        texts: the sentences, lower case.
        fs: samples a second; 16000.

    Raises:
        MissingExtraError: pocketsphinx or jiwer is not installed.
        ConfigError: another rate, or no sentences.
    """

    def __init__(self, texts: Sequence[str], fs: int = 16000) -> None:
        if fs != 16000 or not texts:
            raise ConfigError(f"the recogniser needs sentences and 16000 samples a second, not {len(texts)} and {fs}")
        pocketsphinx: Any = require("pocketsphinx", "speech-eval")
        self._jiwer: Any = require("jiwer", "speech-eval")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "texts.arpa"
            path.write_text(bigrams(texts), encoding="utf-8")
            self._decoder = pocketsphinx.Decoder(samprate=fs, lm=str(path), loglevel="FATAL")

    def words(self, x: Tensor) -> str:
        """What is said in a recording (n,)."""
        level = float(x.abs().max().clamp(min=1e-9))
        samples = (x.numpy() * (0.5 / level) * 32767).astype(np.int16).tobytes()
        self._decoder.start_utt()
        self._decoder.process_raw(samples, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""

    def errors(self, x: Tensor, text: str) -> int:
        """Words substituted, deleted or inserted against what was said."""
        found = self._jiwer.process_words(text, self.words(x) or "<nothing>")
        return int(found.substitutions + found.deletions + found.insertions)


def bigrams(texts: Sequence[str]) -> str:
    """Language model of sentences in ARPA format: bigrams with absolute discounting, backed off to unigrams.

    >>> print(bigrams(["hang up"]).splitlines()[1])
    ngram 1=4
    """
    lines = [["<s>", *text.split(), "</s>"] for text in texts]
    single = Counter(word for line in lines for word in line)
    pairs = Counter(pair for line in lines for pair in pairwise(line))
    total = sum(n for word, n in single.items() if word != "<s>")
    follows = Counter(a for a, _ in pairs)
    before = Counter(word for line in lines for word in line[:-1])
    out = ["\\data\\", f"ngram 1={len(single)}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    for word in sorted(single):
        p = -99.0 if word == "<s>" else math.log10(single[word] / total)
        seen = sum(single[b] for a, b in pairs if a == word) / total
        free = _DISCOUNT * follows[word] / before[word] if before[word] else 1.0
        out.append(f"{p:.4f} {word} {math.log10(free / max(1 - seen, 1e-3)):.4f}")
    out += ["", "\\2-grams:"]
    out += [f"{math.log10((n - _DISCOUNT) / before[a]):.4f} {a} {b}" for (a, b), n in sorted(pairs.items())]
    return "\n".join([*out, "", "\\end\\", ""])
