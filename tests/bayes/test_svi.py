"""Bayesian layers: the contract, their estimators, the bound, training that resumes, guides that run nothing."""

import pytest
import torch
from torch import nn

from netfit.bayes import Bayesian, Gaussian, fit_svi, load_posterior, load_pyro_guide, to_bayesian
from netfit.bayes.svi import BayesConv1d, BayesConv2d, BayesLinear, kl_divergence, posterior, sampling
from netfit.errors import ArtifactError, ConfigError, JobError, UnsupportedLayerError
from netfit.surgery import Policy, apply, sites
from netfit.testing import TechniqueContract

from .nets import built, inputs, mlp

X = inputs(5, 6)


class TestContract(TechniqueContract):
    pattern = "head"

    @pytest.fixture
    def technique(self):
        return Bayesian(prior_std=0.5)

    def test_policy_file_round_trip(self, technique):
        assert Policy.from_toml(Policy({"*": technique}).to_toml()) == Policy({"*": technique})


class TestContractEverywhere(TestContract):
    pattern = "*"


def test_layers_keep_their_names_and_compute_with_their_means():
    model = mlp().eval()
    new = to_bayesian(model, X).eval()
    assert [s.name for s in sites(new, X)] == [s.name for s in sites(model, X)]
    assert torch.equal(new(X), model(X))
    assert set(model.state_dict()) < set(new.state_dict())


@pytest.mark.parametrize("estimator", ["local", "flipout", "weight"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda e: BayesLinear(4, 3, init_std=0.3, estimator=e), (2, 4)),
        (lambda e: BayesConv1d(2, 3, 3, init_std=0.3, estimator=e), (2, 2, 6)),
        (lambda e: BayesConv2d(2, 4, 3, padding=1, groups=2, init_std=0.3, estimator=e), (2, 2, 5, 4)),
    ],
)
def test_estimators_have_the_moments_of_drawn_weights(make, shape, estimator):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        layer, x = make(estimator), inputs(*shape)
        std = layer.posterior()[1]
        bias_std = layer.bias_posterior()[1]
        want = layer.product(x.square(), std.square(), bias_std.square())
        out = torch.stack([layer.train()(x) for _ in range(3000)])
        assert torch.allclose(out.mean(0), layer.eval()(x), atol=0.12)
        assert (out.var(0) / want).log().abs().max() < 0.25
        layer.train().estimator = "mean"
        assert torch.equal(layer(x), layer.eval()(x))


def test_sampling_draws_the_same_networks_from_the_same_seed_and_ends():
    model = built(mlp, X)
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    with sampling(model, first):
        a, b = model(X), model(X)
    with sampling(model, second):
        assert torch.equal(model(X), a)
    assert not torch.equal(a, b)
    assert torch.equal(model(X), model(X))


def test_divergence_in_closed_form():
    layer = BayesLinear(1, 1, bias=False, prior_std=2.0, init_std=0.5)
    layer.weight.data.fill_(1.0)
    want = torch.log(torch.tensor(4.0)) + (0.25 + 1) / 8 - 0.5
    assert kl_divergence(layer).item() == pytest.approx(float(want), rel=1e-5)
    assert kl_divergence(BayesLinear(3, 2, prior_std=0.1, init_std=0.1)) > 0


def data():
    x = inputs(120, 6)
    return x, (x[:, 0] > 0).long()


def test_training_goes_on_after_a_kill(tmp_path):
    def run(checkpoint, stop_at=None):
        def progress(facts):
            if stop_at and "seconds" in facts and facts["epoch"] == stop_at:
                raise KeyboardInterrupt

        model = built(lambda: mlp(classes=2), X)
        fit_svi(model, data(), epochs=4, batch_size=40, checkpoint=checkpoint, progress=progress, seed=1)
        return model.state_dict()

    whole = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop_at=2)
    resumed = run(tmp_path / "b")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_training_learns_and_stops_early():
    model, train = built(lambda: mlp(classes=2), X), data()
    history = fit_svi(model, train, epochs=40, lr=0.02, batch_size=20, kl_weight=0.1, validation=train, patience=5)
    assert max(history.validation) > 0.85
    assert len(history.loss) < 40


def test_refused():
    with pytest.raises(ConfigError, match="prior_std=-1"):
        Bayesian(prior_std=-1)
    with pytest.raises(ConfigError, match="did you mean 'local'"):
        Bayesian(estimator="locale")
    with pytest.raises(UnsupportedLayerError, match="padding_mode='reflect'"):
        to_bayesian(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")), inputs(1, 1, 4, 4))
    with pytest.raises(ConfigError, match="no Bayesian layer"):
        fit_svi(mlp(), data(), epochs=1)
    with pytest.raises(ConfigError, match="patience"):
        fit_svi(built(mlp, X), data(), epochs=1, patience=2)
    with pytest.raises(JobError, match=r"not finite|is nan|is inf"):
        fit_svi(built(mlp, X), (data()[0] * 1e38, data()[1]), epochs=1)
    with pytest.raises(UnsupportedLayerError, match="finds only"):
        apply(mlp(), Policy({"1": Bayesian()}), X)


def guide(path, names, **changes):
    params = {}
    for name, shape in names.items():
        params[f"AutoNormal.locs.{name}"] = torch.full(shape, 0.5)
        params[f"AutoNormal.scales.{name}"] = torch.zeros(shape)
    constraints = {key: torch.distributions.constraints.real for key in params}
    positive = torch.distributions.constraints.positive
    constraints |= {key: positive for key in params if ".scales." in key}
    torch.save({"params": params, "constraints": constraints} | changes, path)
    return path


NAMES = {f"{layer}.{role}": shape for layer, n, k in (("0", 12, 6), ("2", 12, 12), ("4", 3, 12))
         for role, shape in (("weight", (n, k)), ("bias", (n,)))}  # fmt: skip


def test_guides_are_read_by_the_constraints_they_declare(tmp_path):
    state = load_pyro_guide(guide(tmp_path / "g.pt", NAMES))
    assert set(state) == set(NAMES)
    assert torch.equal(state["0.weight"].var, torch.ones(12, 6))  # exp(0)^2: positive is exp in Pyro
    model = load_posterior(to_bayesian(mlp().eval(), X), state)
    assert torch.allclose(model[0].posterior()[1], torch.ones(12, 6))
    assert torch.equal(model[4].weight, torch.full((3, 12), 0.5))
    half = load_posterior(to_bayesian(mlp().eval(), X), state, variance_scale=0.25)
    assert torch.allclose(half[0].posterior()[1], torch.full((12, 6), 0.5))
    other = {key.replace("0.", "input.").replace("2.", "hidden.").replace("4.", "out."): g for key, g in state.items()}
    assert torch.equal(load_posterior(to_bayesian(mlp().eval(), X), other)[2].weight, model[2].weight)


class Payload:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_guides_run_nothing(tmp_path, capsys):
    path = guide(tmp_path / "g.pt", NAMES, extra=Payload())
    with pytest.raises(ArtifactError, match="print"):
        load_pyro_guide(path)
    torch.save({"a": TechniqueContract}, path)
    with pytest.raises(ArtifactError, match="TechniqueContract"):
        load_pyro_guide(path)
    assert "never" not in capsys.readouterr().out


def test_guides_that_do_not_fit(tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"not a file of torch")
    for name in ("broken.pt", "absent.pt"):
        with pytest.raises(ArtifactError, match=name):
            load_pyro_guide(tmp_path / name)
    torch.save({"weights": torch.ones(2)}, tmp_path / "plain.pt")
    with pytest.raises(ArtifactError, match="no parameter store"):
        load_pyro_guide(tmp_path / "plain.pt")
    model = to_bayesian(mlp().eval(), X)
    state = posterior(model)
    with pytest.raises(ConfigError, match=r"0\.weight is \(2, 2\) in the posterior, \(12, 6\) here"):
        load_posterior(model, state | {"0.weight": Gaussian(torch.ones(2, 2), torch.ones(2, 2))})
    with pytest.raises(ConfigError, match="names and counts differ"):
        load_posterior(model, {"fc.weight": state["0.weight"]})
    with pytest.raises(ConfigError, match="missing from the posterior"):
        load_posterior(model, {k: v for k, v in state.items() if k != "2.bias"})
