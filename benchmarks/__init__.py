"""Benchmarks: each prints a table of ratios measured in one run and keeps it in ``benchmarks/results``."""
