"""Bayesian networks at a few bits: rounding with training, a packed file, and what every weight takes."""

from netfit.bayes.quantized._packed import load_packed, memory_report, save_packed
from netfit.bayes.quantized._technique import QuantizeBayes, quantize_bayes

__all__ = ["QuantizeBayes", "load_packed", "memory_report", "quantize_bayes", "save_packed"]
