"""A quantized TranAD inside the anomaly detector: racks of nodes, one of which drifts together with its rack."""

import argparse
from typing import Any

import numpy as np

from netfit.detect import Forecaster, Frame, HybridDetector, metrics
from netfit.surgery import Policy, Quantize


def fleet(rows: int, seed: int) -> Frame:
    """Three racks of eight nodes under one daily curve."""
    rng, time = np.random.default_rng(seed), np.arange(rows, dtype=float)
    load = 50 + 10 * np.sin(2 * np.pi * time / 48)[:, None] * np.repeat([1.0, 0.5, -0.7], 8)
    names = [f"rack=r{n // 8},node=n{n},metric=cpu" for n in range(24)]
    return Frame(time, names, load + rng.normal(0, 1, size=(rows, 24)))


def main(rows: int = 800, epochs: int = 10, bits: int = 8) -> dict[str, Any]:
    """Train, quantize, score a rack whose curve flattens; returns how well both detectors rank the rows."""
    steady, stream = fleet(rows, 0), fleet(rows, 1)
    stream = Frame(stream.times + rows, stream.columns, stream.values)
    wrong = np.zeros(rows, bool)
    wrong[rows // 2 : rows // 2 + 40] = True
    stream.values[wrong, :8] += 15  # all of a rack: its peers agree, only the past can tell
    detector = HybridDetector("rack", temporal=Forecaster("tranad", epochs=epochs, batch_size=32)).fit(steady)
    plain = -detector.score_samples(stream)
    small = detector.compress(Policy({"kind:linear": Quantize(weight_bits=bits, act_bits=bits)}), steady)
    scores = -small.score_samples(stream)
    result = {
        "plain": metrics.average_precision(wrong, plain), "quantized": metrics.average_precision(wrong, scores),
        "moved": float(np.nanmax(np.abs(scores - plain))), "alerts": len(small.detect(stream)),
    }  # fmt: skip
    print("average precision {plain:.3f} in fp32, {quantized:.3f} in int8; {alerts} alerts".format(**result))
    return result


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=800)
    options.add_argument("--bits", type=int, default=8)
    main(**vars(options.parse_args()))
