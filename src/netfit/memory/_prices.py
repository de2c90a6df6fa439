"""What each way of keeping each tensor costs: bytes, gradient error, time."""

import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ._compress import CodecPolicy, compressed_saved
from ._inventory import LOSS, Inventory, inventory
from ._kinds import KINDS, LEAST, MASKED, POOLS
from ._step import TrainingStep, undisturbed
from .codecs import parse

__all__ = ["LADDER", "Prices", "Unit", "gradients", "prices", "relative_error", "units"]

Floats = NDArray[np.float64]
LADDER = ("keep", "q8", "q4", "q2")
_PROBE, _MOST_PROBES = "q4", 40


@dataclass(frozen=True)
class Unit:
    """Operations that are decided together, because they save the same memory or one of them saves several.

    Args:
        names: of the operations.
        memories: numbers of the storages they save.
        kind: what the unit is compared by: kinds and shapes of what it saves.
        exact: nothing of it is kept with an error under any codec.
    """

    names: tuple[str, ...]
    memories: tuple[int, ...]
    kind: tuple[str, ...]
    exact: bool


@dataclass(frozen=True)
class Prices:
    """Costs of every choice.

    Args:
        nbytes: kept bytes by storage and word of `LADDER`, (storages, words).
        error: squared relative gradient error by unit and word, (units, words).
        seconds: added to a step by unit and word, (units, words).
        step_seconds: of a step as it is, without its update.
    """

    nbytes: Floats
    error: Floats
    seconds: Floats
    step_seconds: float


def units(found: Inventory) -> list[Unit]:
    """Split what a step saves into the parts that can be decided one by one."""
    names: dict[int, set[str]] = defaultdict(set)
    memories: dict[str, set[int]] = defaultdict(set)
    fixed = set(found.held)
    for row in found.rows:
        if row.kind not in KINDS or row.name == LOSS:
            fixed.add(row.memory)
    large = [r for r in found.rows if r.memory not in fixed and np.prod(r.shape) >= LEAST]
    for row in large:
        names[row.memory].add(row.name)
        memories[row.name].add(row.memory)
    kinds = {m: sorted({(r.kind, r.shape) for r in large if r.memory == m}) for m in names}
    out, done = [], set()
    for first in names:
        if first in done:
            continue
        group, todo = set(), [first]
        while todo:
            memory = todo.pop()
            if memory not in group:
                group.add(memory)
                todo += [m for name in names[memory] for m in memories[name]]
        done |= group
        listed = sorted({pair for m in group for pair in kinds[m]})
        exact = all(kind in MASKED | POOLS for kind, _ in listed)
        places = sorted({name for m in group for name in names[m]})
        out.append(Unit(tuple(places), tuple(sorted(group)), tuple(f"{k} {s}" for k, s in listed), exact))
    return out


def prices(step: TrainingStep, found: Inventory, parts: list[Unit], seed: int) -> Prices:
    """Measure bytes in one forward pass a word, errors in one backward pass a kind of unit, times once a word.

    Errors of different tensors add up squared, and those of k-bit rounding go with the size of its step, so one
    word is probed and the others follow: (2^4 - 1)^2 / (2^k - 1)^2.
    """
    nbytes = np.stack([_kept_bytes(step, word, found, seed) for word in LADDER], axis=1)
    plain, step_seconds = gradients(step, None, seed)
    bits = [int(word[1:]) for word in LADDER[1:]]
    scale = np.array([0.0, *((15 / (2**k - 1)) ** 2 for k in bits)])
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    lossy = [i for i, unit in enumerate(parts) if not unit.exact]
    coarse = len({parts[i].kind for i in lossy}) > _MOST_PROBES
    for i in lossy:
        key = tuple(sorted({k.split()[0] for k in parts[i].kind})) if coarse else parts[i].kind
        groups[key].append(i)
    error = np.zeros((len(parts), len(LADDER)))
    for members in groups.values():
        words = {name: _PROBE for i in members for name in parts[i].names}
        share = relative_error(plain, gradients(step, words, seed)[0]) ** 2 / len(members)
        error[members] = share * scale
    return Prices(nbytes, error, _seconds(step, parts, nbytes), step_seconds)


def _kept_bytes(step: TrainingStep, word: str, found: Inventory, seed: int) -> Floats:
    """Bytes that are kept of each storage when everything is kept by one codec."""
    kept = found if word == "keep" else inventory(step, policy=word, seed=seed)
    sums = np.zeros(1 + max(row.memory for row in found.rows))
    # Under a codec memory is freed and used again, so a tensor is known by its place in the order of saving.
    for row, original in zip(kept.rows, found.rows, strict=True):
        sums[original.memory] += row.kept_bytes
    return sums


def gradients(step: TrainingStep, policy: CodecPolicy | None, seed: int) -> tuple[dict[str, torch.Tensor], float]:
    """Gradients of a step and the CPU time they took; the same dropout masks at every call."""
    with undisturbed(step):
        torch.manual_seed(seed)
        start = time.process_time()
        if policy is None:
            return step.gradients(), time.process_time() - start
        with compressed_saved(step.model, policy, seed=seed):
            return step.gradients(), time.process_time() - start


def relative_error(exact: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of all gradients together over the norm of the exact ones."""
    difference = sum(float((found[name] - g).double().square().sum()) for name, g in exact.items())
    norm = sum(float(g.double().square().sum()) for g in exact.values())
    return float(np.sqrt(difference / norm)) if norm else 0.0


def _seconds(step: TrainingStep, parts: list[Unit], nbytes: Floats) -> Floats:
    """Time to pack and unpack, by the rate of each codec on one tensor."""
    sample = torch.randn(1 << 18, device=step.inputs[0].device)
    rates = [0.0]
    for word in LADDER[1:]:
        codec, spent = parse(word), []
        for _ in range(3):
            start = time.process_time()
            codec.pack(sample).unpack()
            spent.append(time.process_time() - start)
        rates.append(min(spent) / sample.nbytes)
    size = np.array([nbytes[list(unit.memories), 0].sum() for unit in parts])
    return np.asarray(size[:, None] * np.array(rates)[None, :])
