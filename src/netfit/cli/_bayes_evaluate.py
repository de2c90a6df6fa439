"""``netfit bayes evaluate``: how good a network's uncertainties are; ``netfit data make``: digits to try them on."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from netfit.errors import ConfigError, did_you_mean

from ._bayes import RunDir, open_saved, rewritten, some
from ._options import Count, Json, Seed
from ._output import Output, answer, table, write_page

if TYPE_CHECKING:
    from torch import Tensor

    from netfit.bayes import Uncertainty

__all__ = ["evaluate", "make"]

_SHOWN = 12  # images the network is least sure of
_CURVE = 100  # points of a curve


def evaluate(
    saved: Annotated[Path, Parameter(help="Folder of a Bayesian network, or a file that netfit bayes pfp wrote.")],
    /,
    *,
    inside: Annotated[str, Parameter(name="--in", help="Data set the network was made for.")],
    ambiguous: Annotated[str | None, Parameter(help="Data set whose labels are uncertain.")] = None,
    ood: Annotated[str | None, Parameter(help="Foreign data set.")] = None,
    method: Annotated[Literal["pfp", "svi"], Parameter(help="One pass, or many networks drawn.")] = "pfp",
    draws: Annotated[Count, Parameter(help="Networks drawn (svi), or logits (pfp).")] = 100,
    test_samples: Annotated[Count, Parameter(help="Test images of each data set.")] = 1000,
    run: RunDir = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Score predictions and uncertainties, and show the images the network is least sure of."""
    from netfit.bayes import metrics, predict
    from netfit.runs import Run

    names = {"in": inside} | {k: v for k, v in (("ambiguous", ambiguous), ("ood", ood)) if v is not None}
    sets = {role: some(name, "test", test_samples, seed) for role, name in names.items()}
    network = _network(saved, method)
    arguments = {"saved": str(saved), "sets": names, "method": method, "draws": draws, "test_samples": test_samples}
    with Run.open(run, "bayes-evaluate", arguments, seed) as opened:
        found = {role: predict(network, x, method=method, n_samples=draws, seed=seed) for role, (x, _) in sets.items()}
        y = sets["in"][1]
        facts: dict[str, Any] = {
            "kind": "bayes", "network": str(saved), "method": method, "draws": draws, "sets": names, "images": len(y),
            "scores": _finite(metrics.evaluate(found["in"], y)),
            "means": {r: {k: float(getattr(u, k).mean()) for k in ("total", "aleatoric", "epistemic", "var")}
                      for r, u in found.items()},
            "separation": _separation(found),
            "reliability": [t.tolist() for t in metrics.reliability(found["in"], y)],
            "risk": [_thin(t) for t in metrics.risk_coverage(found["in"], y)],
            "epistemic": {r: _thin(u.epistemic.sort().values) for r, u in found.items()},
            "unsure": _unsure(sets["in"][0], y, found["in"]),
        }  # fmt: skip
        opened.write_result(facts)
    write_page(opened.path)
    rows = [(k, f"{v:.4f}") for k, v in {**facts["scores"], **facts["separation"]}.items() if v is not None]
    text = table(("score", "value"), rows) + f"\nreport: {opened.path / 'report.html'}"
    return answer(as_json, {"run": opened.path, **facts}, text)


def _network(saved: Path, method: str) -> Any:
    """What `predict` takes: the pass, the network, or an ONNX file."""
    if saved.suffix != ".onnx":
        return rewritten(saved) if method == "pfp" else open_saved(saved).model
    if method != "pfp":
        raise ConfigError(f"{saved} holds one pass: --method {method} needs the folder of the network")
    import torch

    from netfit.bayes import Gaussian
    from netfit.deploy import open_session

    session = open_session(saved, "onnxruntime")

    def run(x: "Tensor") -> Gaussian:
        parts = [torch.from_numpy(part) for part in session.run(x.numpy())]
        if len(parts) < 2 or parts[0].dim() != 2 or parts[1].shape != parts[0].shape:
            raise ConfigError(f"{saved} does not return a mean and a variance: write it with netfit bayes pfp")
        return Gaussian(parts[0], parts[1], parts[2] if len(parts) > 2 and parts[2].dim() == 3 else None)

    return run


def _separation(found: "dict[str, Uncertainty]") -> dict[str, float]:
    """How well foreign images are told from all others, and ambiguous from clear ones."""
    from netfit.bayes import metrics
    from netfit.bayes._uncertainty import join

    scores = {}
    if "ood" in found:
        own = join([u for role, u in found.items() if role != "ood"])
        for score in ("epistemic", "total", "var"):
            scores[f"ood_auroc_{score}"] = metrics.ood_auroc(own, found["ood"], score)
    if "ambiguous" in found:
        scores["ambiguous_auroc_aleatoric"] = metrics.ambiguity_auroc(found["in"], found["ambiguous"])
    return scores


def _finite(scores: dict[str, float]) -> dict[str, float | None]:
    return {k: v if v == v else None for k, v in scores.items()}  # NaN is no JSON


def _thin(values: "Tensor") -> list[float]:
    at = [round(i * (len(values) - 1) / (_CURVE - 1)) for i in range(_CURVE)]
    return values[at].tolist()


def _unsure(x: "Tensor", y: "Tensor", u: "Uncertainty") -> list[dict[str, Any]]:
    """The images of largest total uncertainty: pixels from 0 to 255 and what the network says; images only."""
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        return []
    shown = []
    for i in u.total.argsort(descending=True)[:_SHOWN].tolist():
        pixels = x[i] - x[i].min()
        pixels = (255 * pixels / pixels.max().clamp_min(1e-9)).round().int()
        shown.append({"pixels": pixels.tolist(), "label": int(y[i]), "prediction": int(u.prediction[i]),
                      "total": float(u.total[i]), "epistemic": float(u.epistemic[i])})  # fmt: skip
    return shown


def make(
    name: Annotated[str, Parameter(help="What to make: ambiguous-digits.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="File to write; by default where netfit data finds ambiguous-mnist.")
    ] = None,
    images: Annotated[Count, Parameter(help="Training images to make; two fifths as many for the test.")] = 6000,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Make a data set that cannot be downloaded."""
    import torch

    from netfit.bayes._ambiguous import Recipe, make_ambiguous_digits
    from netfit.data import load

    from ._progress import Lines, Step

    if name != "ambiguous-digits":
        raise ConfigError(f"{name!r} cannot be made: {did_you_mean(name, ['ambiguous-digits'])}")
    digits = load("mnist")
    place = out or _cache() / "ambiguous_mnist.npz"
    x, y = torch.from_numpy(digits.x / 255).float(), torch.from_numpy(digits.y)
    recipe = Recipe(train=images, test=2 * images // 5)
    made = make_ambiguous_digits(x, y, place, seed=seed, recipe=recipe, progress=Lines(Step(0.0), sys.stderr))
    text = f"{made['train']} training and {made['test']} test images: {place}"
    return answer(as_json, {"file": place, **made}, text)


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("netfit"))
