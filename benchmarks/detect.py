"""What the detector finds: labelled servers, a recorded fleet, injected anomalies, channels that come and go.

`python -m benchmarks.detect [asd smd fleet inject churn smse partial]`; all of them when none is named. The fleet is
recorded on this machine for five minutes unless `NETFIT_FLEET` names recordings, separated by colons.
"""

import os
import sys
import time
import warnings

import numpy as np
from sklearn.ensemble import IsolationForest

from netfit.data import series
from netfit.detect import SPOT, Forecaster, Frame, HybridDetector, WindowPCA, metrics
from netfit.detect.fleet import CATEGORIES, inject, judge, read_recording
from netfit.detect.fleet import record as record_fleet
from netfit.kernels import peers

from ._common import record


def fleet_of(servers: dict) -> tuple[Frame, int]:
    """All servers side by side, and the row at which the labelled part begins; the parts before end together."""
    before = min(len(s.train) for s in servers.values())
    names = [f"server={name},metric={channel}" for name, s in servers.items() for channel in s.channels]
    parts = [np.concatenate([s.train[-before:], s.test]) for s in servers.values()]
    values = np.concatenate(parts, axis=1).astype(np.float64)
    return Frame(np.arange(len(values), dtype=float), names, values), before


def entity_scores(frame: Frame, first: int, combine: str = "any") -> tuple[dict[str, np.ndarray], list, dict]:
    """Scores by server from row `first` on, alerts, and what each channel added to the score of its server."""
    detector = HybridDetector("metric", entity="server", combine=combine)
    engine, shares = detector._running(), {}
    inner = engine._series_rows

    def watched(x, rows):
        found = inner(x, rows)
        for subject, part in found.items():
            shares.setdefault(subject, []).append(part.share)
        return found

    engine._series_rows = watched
    result = engine.run(frame, "entity")
    scores = {name: np.nan_to_num(result.scores[first:, i]) for i, name in enumerate(result.names)}
    order = {s: [n.rpartition("=")[2] for n in engine.series[s].names] for s in scores}
    return scores, result.alerts, {s: (np.concatenate(shares[s])[first:], order[s]) for s in scores}


def mean_ap(servers: dict, scores: dict[str, np.ndarray]) -> float:
    return float(np.mean([metrics.average_precision(s.label, scores[name]) for name, s in servers.items()]))


def asd() -> None:
    servers = series("asd")
    frame, first = fleet_of(servers)
    start = time.process_time()
    scores, alerts, shares = entity_scores(frame, first)
    seconds = time.process_time() - start
    single = {"own windows (WindowPCA)": own_windows(servers), "distance from peers": from_peers(frame, first, servers)}
    forest = {}
    for name, s in servers.items():
        forest[name] = -IsolationForest(random_state=0).fit(s.train).score_samples(s.test)
    rng = np.random.default_rng(0)
    control = {name: rng.random(len(s.label)) for name, s in servers.items()}
    table = {"netfit, defaults": scores, **single, "IsolationForest": forest, "random control": control}
    rows = [{"scores": name, "mean_ap": mean_ap(servers, found)} for name, found in table.items()]
    named, true = [], []
    for name, s in servers.items():
        share, order = shares[name]
        for a, b, at_fault in s.causes:
            worst = np.argsort(-share[a:b].sum(0))
            named.append([order[i] for i in worst])
            true.append([s.channels[c] for c in at_fault])
    ap, best = rows[0]["mean_ap"], max(mean_ap(servers, found) for found in single.values())
    raised = [a for a in alerts if a.end is None and a.start >= first]
    record(
        "detect_asd", rows, goal=0.50, met=ap >= 0.50, times_forest=ap / rows[3]["mean_ap"], goal_times_forest=2,
        times_best_single=ap / best, goal_times_best_single=1.15, hit_rate_100=metrics.hit_rate_at(named, true),
        goal_hit_rate=0.85, segments=len(true), cpu_s=seconds, goal_cpu_s=60, alerts=len(raised),
        chosen="defaults were chosen among about ten on these labels",
    )  # fmt: skip


def own_windows(servers: dict) -> dict[str, np.ndarray]:
    found = {}
    for name, s in servers.items():
        x = np.concatenate([s.train, s.test]).astype(np.float64)
        model = WindowPCA().start(x.shape[1])
        found[name] = np.nan_to_num(model.rows(x, np.ones(x.shape, bool)).score)[len(s.train) :]
    return found


def from_peers(frame: Frame, first: int, servers: dict) -> dict[str, np.ndarray]:
    """Root mean square of the clipped distances of a server's channels from their peers."""
    metric = np.array([name.partition("metric=")[2] for name in frame.columns])
    order = np.argsort(metric, kind="stable")
    offset = np.concatenate([[0], np.cumsum(np.unique(metric, return_counts=True)[1])])
    found = peers.rows(
        frame.values, order.astype(np.int64), np.zeros(len(offset) - 1), peers.PeerSettings(), peers.PeerState(offset),
        dense=True,
    )  # fmt: skip
    z = np.empty(found.z.shape)
    z[:, order] = found.z
    z = np.minimum(np.abs(z[first:]), 10).reshape(len(z) - first, len(servers), -1)
    return {name: np.sqrt((z[:, i] ** 2).mean(1)) for i, name in enumerate(servers)}


def smd() -> None:
    rows = []
    for name, s in series("smd").items():
        x = np.concatenate([s.train, s.test]).astype(np.float64)
        frame = Frame(np.arange(len(x), dtype=float), [f"machine=m,metric={c}" for c in s.channels], x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one machine has no peers
            engine = HybridDetector("metric", entity="machine", combine="temporal")._running()
            scores = np.nan_to_num(engine.run(frame, "entity").scores[len(s.train) :, 0])
        good, control = metrics.summary(s.label, scores, adjusted=True)
        rows.append(
            {"machine": name, "ap": good["average_precision"], "random_ap": control["average_precision"],
             "adjusted_f1": good["point_adjusted_f1"], "random_adjusted_f1": control["point_adjusted_f1"]}
        )  # fmt: skip
    ap = float(np.mean([row["ap"] for row in rows]))
    record("detect_smd", rows, mean_ap=ap, goal=0.62, met=ap >= 0.62)


def fleet() -> None:
    places = os.environ.get("NETFIT_FLEET", "").split(os.pathsep)
    rows = []
    for number, place in enumerate(places):
        made = read_recording(place) if place else record_fleet(groups=3, nodes=24, seconds=300, churn=0.1, seed=0)
        for absent in ("alert", "ignore"):
            judged = judge(made, HybridDetector(["group", "metric"], entity="node", absent=absent).detect(made.frame))
            for kind in sorted({f.kind for f in made.faults}):
                mine = [f for f in judged.found if f[0] == kind]
                within = [f for f in mine if f[2] == f[2]]
                rows.append(
                    {"recording": number, "absent": absent, "fault": kind, "faults": len(mine),
                     "found_within_15_s": len(within), "node_first": sum(f[3] for f in within),
                     "slowest_s": max([f[2] for f in within], default=None),
                     "false_per_1000_node_s": judged.false_per_1000_node_seconds}
                )  # fmt: skip
    told = [row for row in rows if row["absent"] == "alert"]
    met = all(r["faults"] == r["found_within_15_s"] == r["node_first"] for r in told)
    record(
        "detect_fleet", rows, nodes=72, seconds=300, churn=0.1, trained="no", goal="all found, 95 % first, at most 1",
        met=met and max(r["false_per_1000_node_s"] for r in told) <= 1,
    )  # fmt: skip


def injected() -> None:
    servers = series("asd")
    before = min(len(s.train) for s in servers.values())
    names = [f"server={n},metric={c}" for n, s in servers.items() for c in s.channels]
    values = np.concatenate([s.train[-before:] for s in servers.values()], axis=1).astype(np.float64)
    clean = Frame(np.arange(before, dtype=float), names, values)
    first, rows = 2_500, []
    late = clean.rows(slice(first, None))
    for name, bit in CATEGORIES.items():
        made = inject(late, "metric", categories=[name], ratio=4.0, seed=0)
        x = np.concatenate([values[:first], made.frame.values])
        row = {"category": name, "segments": len(metrics.segments(made.mask & bit))}
        table, scores = Frame(clean.times, names, x), {}
        for combine, stage in (("peer", None), ("temporal", WindowPCA())):
            engine = HybridDetector("metric", temporal=stage, combine=combine)._running()
            scores[combine] = np.nan_to_num(engine.run(table, "time").scores[first:, 0])
        scores["any"] = np.maximum(scores["peer"], scores["temporal"])  # as combine="any" does without an entity
        row |= {combine: metrics.event_recall(made.mask > 0, found, 0.01) for combine, found in scores.items()}
        rows.append(row)
    record("detect_inject", rows, base="ASD, rows before the labelled part", measure="event recall at 1 % false alarms")


def churn() -> None:
    """A stand-in for the PlanetLab traces, which are not at hand: as many names, groups, days and changes."""
    rng = np.random.default_rng(0)
    names, days, day = 3_600, 10, 288
    level, scale = rng.gamma(2, 10, names), rng.gamma(2, 1, names)
    labels = [f"slice=s{i % 145},node=n{i}" for i in range(names)]
    detector, z_max, start = HybridDetector("slice", temporal=None), [], time.process_time()
    present = np.sort(rng.permutation(names)[:1_200])
    tables = []
    for d in range(days):
        stay = rng.permutation(present)[: int(len(present) * (1 - rng.uniform(0.43, 0.76)))]
        fresh = rng.permutation(np.setdiff1d(np.arange(names), stay))[: int(rng.integers(900, 1_500)) - len(stay)]
        present = np.sort(np.concatenate([stay, fresh]))
        noise = rng.standard_t(4, (day, len(present)))
        x = level[present] + scale[present] * noise
        tables.append(Frame(np.arange(d * day, (d + 1) * day, dtype=float), [labels[i] for i in present], x))
    start = time.process_time()
    alerts = [a for table in tables for a in detector.detect(table) if a.end is None]
    seconds = time.process_time() - start
    engine = HybridDetector("slice", temporal=None)._running()
    for table in tables:
        engine._use(table.columns)
        found = engine.peers.rows(table.values, engine.layout.source, True)
        z_max.append(np.nanmax(np.abs(found.z), axis=1))
    rows = []
    for q in (1e-2, 1e-3):
        rate = float(SPOT(q=q).start().run(np.concatenate(z_max))[288:].mean())
        rows.append({"q": q, "realised": rate, "met": q / 3 <= rate <= 3 * q})
    record("detect_churn", rows, rows_taken=days * day, names=names, cpu_s=seconds, goal_cpu_s=5, alerts=len(alerts))


def smse() -> None:
    """The semi-supervised loss against the squared error: trained on six servers, judged on the other six."""
    import torch

    from netfit.detect._train import fit_windows

    servers = series("asd")
    learn, held = list(servers)[::2], list(servers)[1::2]
    size, rows = 17, []

    def windows(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(x, np.float32)).unfold(0, size, 1).transpose(1, 2)

    plain = torch.cat([windows(servers[n].train)[::6] for n in learn])
    marked = torch.cat([windows(servers[n].test) for n in learn])
    share = torch.cat([torch.from_numpy(servers[n].label.astype(np.float32)).unfold(0, size, 1).mean(1) for n in learn])
    for seed in (0, 1, 2):
        chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(marked))[: len(plain) // 19])
        x, y = torch.cat([plain, marked[chosen]]), torch.cat([torch.zeros(len(plain)), share[chosen]])
        for mu in (None, 0.12):
            settings = Forecaster(kind="informer", window=size, epochs=3, batch_size=128, lr=1e-3, mu=mu)
            torch.manual_seed(seed)
            network = settings.build(19)
            fit_windows(network, x, None if mu is None else y, settings, seed)
            found = {}
            with torch.no_grad():
                for n in held:
                    test = np.concatenate([servers[n].train[-size + 1 :], servers[n].test])
                    found[n] = network.error(windows(test))[0].mean(1).numpy()
            rows.append({"seed": seed, "loss": "MSE" if mu is None else f"SMSE mu={mu}",
                         "mean_ap": mean_ap({n: servers[n] for n in held}, found)})  # fmt: skip
    gain = float(np.mean([b["mean_ap"] - a["mean_ap"] for a, b in zip(rows[::2], rows[1::2], strict=True)]))
    record("detect_smse", rows, gain=gain, goal=0.03, met=gain >= 0.03, labelled=0.05, judged_on="six other servers")


def partial() -> None:
    """A third of the metrics of all servers vanish in the middle of the labelled part."""
    servers = series("asd")
    frame, first = fleet_of(servers)
    half = first + (len(frame) - first) // 2
    metric = np.array([name.partition("metric=")[2] for name in frame.columns])
    gone = np.isin(metric, sorted(set(metric))[::3])
    values = frame.values.copy()
    values[half:, gone] = np.nan
    less = Frame(frame.times, frame.columns, values)
    whole, part = (entity_scores(f, first, "temporal")[0] for f in (frame, less))
    late = {n: s.label[half - first :] for n, s in servers.items() if s.label[half - first :].any()}
    ap = [
        float(np.mean([metrics.average_precision(label, scores[n][half - first :]) for n, label in late.items()]))
        for scores in (whole, part)
    ]
    engines = [HybridDetector("metric", entity="server", temporal=None)._running() for _ in range(2)]
    peer = [e.run(f, "channel").scores for e, f in zip(engines, (frame, less), strict=True)]
    kept = np.array([not np.isin(group, metric[gone]) for group, _ in engines[0].layout.keys])
    same = bool(np.array_equal(peer[0][:, kept], peer[1][:, kept], equal_nan=True))
    drop = 1 - ap[1] / ap[0]
    row = {"gone": float(gone.mean()), "ap_whole": ap[0], "ap_after": ap[1], "drop": drop, "other_peers_equal": same}
    record("detect_partial", [row], goal_drop=0.1, met=drop < 0.1 and same)


PARTS = {"asd": asd, "smd": smd, "fleet": fleet, "inject": injected, "churn": churn, "smse": smse, "partial": partial}


def main() -> None:
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
