"""Schedules of plain pipelines: GPipe, 1F1B, interleaved 1F1B, ZB-H1 and ZB-H2."""

from __future__ import annotations

from collections.abc import Iterator

from netfit.errors import ConfigError

from ._schedule import Op

__all__ = ["gpipe", "interleaved", "one_f_one_b", "zb_h1", "zb_h2", "zero_bubble_row"]

Rows = list[list[Op]]


def gpipe(p: int, m: int) -> Rows:
    """All forwards, then all backwards ("GPipe: Efficient Training of Giant Neural Networks", 2019)."""
    return [[Op("F", d, j) for j in range(m)] + [Op("X", d, j) for j in range(m)] for d in range(p)]


def one_f_one_b(p: int, m: int) -> Rows:
    """One forward, one backward ("PipeDream: Generalized Pipeline Parallelism for DNN Training", 2019)."""
    return [_merged(d, m, p - 1 - d) for d in range(p)]


def _merged(d: int, m: int, warmup: int) -> list[Op]:
    """Forwards ahead of the backwards by ``warmup``, then alternating."""
    ahead = min(warmup, m)
    row = [Op("F", d, j) for j in range(ahead)]
    for j in range(m):
        if j + ahead < m:
            row.append(Op("F", d, j + ahead))
        row.append(Op("X", d, j))
    return row


def interleaved(p: int, m: int, v: int) -> Rows:
    """Interleaved 1F1B with v chunks ("Efficient Large-Scale Language Model Training on GPU Clusters", 2021).

    Raises:
        ConfigError: m is no multiple of p.
    """
    if m % p:
        raise ConfigError(f"microbatches is {m}, interleaved 1F1B needs a multiple of the {p} devices")

    def turn(k: int, backward: bool) -> tuple[int, int]:
        """Chunk and microbatch of the k-th forward or backward of a device: p microbatches, chunk by chunk."""
        group, within = divmod(k, p * v)
        chunk = within // p
        return (v - 1 - chunk if backward else chunk), group * p + within % p

    rows = []
    for d in range(p):
        total = m * v
        ahead = min((v - 1) * p + 2 * (p - 1 - d), total) if v > 1 else min(p - 1 - d, total)
        row = []
        for k in range(total + ahead):
            if k < total:
                chunk, j = turn(k, backward=False)
                row.append(Op("F", chunk * p + d, j))
            if k >= ahead:
                chunk, j = turn(k - ahead, backward=True)
                row.append(Op("X", chunk * p + d, j))
        rows.append(row)
    return rows


def zb_h1(p: int, m: int) -> Rows:
    """1F1B whose weight gradients wait ("Zero Bubble Pipeline Parallelism", 2024): no more memory than 1F1B."""
    return [zero_bubble_row(d, m, warmup=p - 1 - d, lag=d) for d in range(p)]


def zb_h2(p: int, m: int) -> Rows:
    """ZB-H1 with up to 2p-1 microbatches in flight, which fills the bubble of devices that start steps freely."""
    return [zero_bubble_row(d, m, warmup=2 * (p - 1 - d), lag=2 * d) for d in range(p)]


def zero_bubble_row(d: int, m: int, warmup: int, lag: int) -> list[Op]:
    """Forwards ahead by ``warmup``; each ``W`` comes ``lag`` microbatches after its ``B``."""
    ahead = min(warmup, m)
    row = [Op("F", d, j) for j in range(ahead)]
    weights: Iterator[int] = iter(range(m))
    for j in range(m):
        if j + ahead < m:
            row.append(Op("F", d, j + ahead))
        row.append(Op("B", d, j))
        # After the last forward nothing else fills the wait for the next B.
        if j >= lag or j + ahead >= m:
            row.append(Op("W", d, next(weights)))
    return row + [Op("W", d, j) for j in weights]
