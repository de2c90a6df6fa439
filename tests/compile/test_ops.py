import subprocess
import time

import pytest
import torch

from netfit.compile import MomentKernels, operators, ops, tune
from netfit.compile._sizes import ConvSizes
from netfit.compile.ops import _build
from netfit.errors import ConfigError, TargetUnavailable
from netfit.kernels import toolchain
from netfit.workload import trace

pytestmark = pytest.mark.skipif(toolchain() is None, reason="no C compiler here")


def values(generator, kind, *shape, planes=1):
    if kind == "float32":
        return torch.randint(-8, 9, shape, generator=generator).float()  # sums are exact
    if kind == "codes":
        return torch.randint(0, 2**planes, shape, generator=generator).to(torch.uint8)
    if kind == "signs":
        return (2 * torch.randint(0, 2, shape, generator=generator) - 1).to(torch.int8)
    return torch.randint(-128, 128, shape, generator=generator).to(torch.int8)


def moments(generator, *shape):
    mean = torch.randn(*shape, generator=generator)
    return torch.stack([mean, mean**2 + 0.1 * torch.rand(*shape, generator=generator)])


CONVS = [ConvSizes(1, 129, 1, 37, 33), ConvSizes(2, 19, 11, 13, 21, 3, 3, (2, 2), (1, 1))]


def units():
    """A small tile of vectors, and of the matrix unit where there is one."""
    if toolchain() is None:
        return []
    return [(0, 4, 2, 2, 1, 1)] + [(1, 32, 2, 1, 1, 1)] * ops.machine().matrix_unit


@pytest.mark.parametrize("sizes", CONVS)
@pytest.mark.parametrize("planes", [1, 2])
def test_products_of_bits_are_exact(sizes, planes):
    g = torch.Generator().manual_seed(0)
    op, z = ops.BitConv2d(sizes, planes), sizes
    x, w = values(g, "codes", z.n, z.c, z.h, z.w, planes=planes), values(g, "signs", z.k, z.c, z.r, z.s)
    assert torch.equal(ops.Kernel(op).pack(w)(x), op.reference(x, w))


@pytest.mark.parametrize("config", units())
@pytest.mark.parametrize(
    ("kind", "sizes", "dtype", "layout"),
    [
        (ops.Conv2d, CONVS[1], "float32", "nchw"),
        (ops.Conv2d, CONVS[1], "int8", "nhwc"),
        (ops.Conv2d, ConvSizes(1, 3, 20, 20, 17, 5, 5, padding=(2, 2)), "float32", "nhwc"),
        (ops.Conv2d, ConvSizes(1, 64, 7, 7, 33, 3, 3, padding=(1, 1)), "int8", "nchw"),
        (ops.Gemm, ConvSizes.gemm(37, 33, 129), "int8", "nhwc"),
        (ops.Gemm, ConvSizes.gemm(50, 70, 512), "float32", "nhwc"),
    ],
)
def test_products_and_convolutions_are_exact(kind, sizes, layout, dtype, config):
    g = torch.Generator().manual_seed(0)
    op = kind(sizes, dtype, layout)
    assert op.space().why(config) is None
    s, bias = op.signature, torch.arange(sizes.k) - 5
    x, w = values(g, dtype, *s.x), values(g, dtype, *s.w)
    kernel, expected = ops.Kernel(op, config), op.reference(x, w)
    assert torch.equal(kernel.pack(w)(x), expected)
    bias = bias.to(expected.dtype)
    turned = bias[:, None, None] if layout == "nchw" else bias
    assert torch.equal(kernel.pack(w, bias)(x), expected + turned)


@pytest.mark.parametrize("config", units())
def test_fp32_is_as_precise_as_torch(config):
    g = torch.Generator().manual_seed(1)
    op = ops.Gemm.of(64, 48, 700)
    x, w = torch.randn(64, 700, generator=g), torch.randn(700, 48, generator=g)
    exact, scale = x.double() @ w.double(), x.abs().double() @ w.abs().double()
    error = ((ops.Kernel(op, config).pack(w)(x) - exact).abs() / scale).max()
    assert error < 2 * ((x @ w - exact).abs() / scale).max() < 1e-6


@pytest.mark.slow
def test_int8_is_exact_on_random_shapes():
    g = torch.Generator().manual_seed(2)
    for _ in range(200):
        m, n, k = (int(torch.randint(1, most, (), generator=g)) for most in (70, 90, 300))
        op = ops.Gemm.of(m, n, k, "int8")
        valid = [c for c in [op.default(ops.machine()), *units()] if op.space().why(c) is None]
        x, w = values(g, "int8", m, k), values(g, "int8", k, n)
        pick = valid[int(torch.randint(0, len(valid), (), generator=g))]
        assert torch.equal(ops.Kernel(op, pick).pack(w)(x), op.reference(x, w)), (m, n, k, pick)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_depthwise(dtype):
    g = torch.Generator().manual_seed(2)
    op = ops.DepthwiseConv2d(ConvSizes(2, 21, 9, 11, 21, 3, 3, (2, 2), (1, 1), 21), dtype)
    x, w = values(g, dtype, 2, 9, 11, 21), values(g, dtype, 21, 3, 3)
    assert torch.equal(ops.Kernel(op).pack(w)(x), op.reference(x, w))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("op", "x", "w"),
    [
        (ops.PfpDense.of(40, 70, 37), (40, 70), (37, 70)),
        (ops.PfpConv2d(ConvSizes(2, 3, 9, 8, 7, 3, 3, padding=(1, 1))), (2, 3, 9, 8), (7, 3, 3, 3)),
    ],
)
def test_gaussian_products(op, x, w, relu):
    g = torch.Generator().manual_seed(3)
    op = type(op)(op.sizes, relu)
    given, weights = moments(g, *x), moments(g, *w)
    expected = op.reference(given, weights)
    scale = expected[1].max()
    for config in (c for c in units() if op.space().why(c) is None):
        found = ops.Kernel(op, config).pack(weights)(given)
        assert ((found[0] - expected[0]).abs() / scale.sqrt()).max() < 3e-5
        assert ((found[1] - expected[1]).abs() / scale).max() < 3e-5


@pytest.mark.parametrize(
    "op", [ops.PfpReLU(2, 3, 7, 9), ops.PfpMaxPool2d(1, 3, 8, 9), ops.PfpMaxPool2d(1, 2, 7, 7, 3, 2)]
)
def test_gaussian_rectifier_and_maximum(op):
    x = moments(torch.Generator().manual_seed(4), op.n, op.c, op.h, op.w)
    assert (ops.Kernel(op)(x) - op.reference(x)).abs().max() < 1e-4


def test_moments_agree_with_sampling():
    g = torch.Generator().manual_seed(5)
    op = ops.PfpMaxPool2d(1, 1, 2, 2)
    x = moments(g, 1, 1, 2, 2)
    draws = x[0].flatten() + (x[1] - x[0] ** 2).sqrt().flatten() * torch.randn(400_000, 4, generator=g)
    best = draws.max(1).values
    found = ops.Kernel(op)(x).flatten()
    assert abs(found[0] - best.mean()) < 0.02 and abs(found[1] - (best**2).mean()) < 0.05


def test_the_exported_file_proves_itself(tmp_path):
    op = ops.Gemm.of(12, 33, 40, "int8")
    ops.Kernel(op).export(tmp_path)
    compiler = toolchain().cc[0]
    strict = ["-std=c11", "-O2", "-march=native", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        [compiler, *strict, "op_test.c", "-o", "t", "-lm"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([tmp_path / "t", "3"], capture_output=True, text=True)
    assert ran.returncode == 0 and '"status":"ok"' in ran.stdout
    assert "op_run" in (tmp_path / "op.h").read_text()


def test_a_kernel_is_tried_in_its_own_process():
    op = ops.Gemm.of(24, 48, 40)
    runner = tune.LocalRunner(op, repeats=3)
    default = op.default(runner.machine)
    found = runner.run([default])[default]
    assert found.status == "ok" and found.seconds > 0 and found.noise >= 0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("op_setup();\n    op_once();", "op_setup();\n    op_once();\n    op_out[0] += 3;"), "wrong_result"),
        (("op_setup();", "op_setup(); *(volatile int *)0 = 1;"), "crash"),
        (("op_setup();", 'op_setup(); for (;;) __asm__ volatile("");'), "timeout"),
        (("op_setup();", "op_setup(; "), "invalid_compile"),
    ],
)
def test_whatever_a_kernel_does_is_a_record(monkeypatch, change, status):
    op = ops.DepthwiseConv2d(ConvSizes(1, 4, 4, 4, 4, 3, 3, groups=4))
    runner = tune.LocalRunner(op, repeats=1, timeout_s=3)
    whole = type(op).program

    def broken(self, config, machine):
        text, words = whole(self, config, machine)
        assert change[0] in text
        return text.replace(*change), words

    monkeypatch.setattr(type(op), "program", broken)
    assert runner.run([(4,)])[(4,)].status == status


def test_a_board_that_is_a_process(tmp_path):
    token = tmp_path / "token"
    token.write_text("a-secret-of-many-letters\n")
    with subprocess.Popen(tune.serve(token, port=0), stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline().partition(":")[2].strip(" }\n"))
            op = ops.DepthwiseConv2d(ConvSizes(1, 4, 4, 4, 4, 3, 3, groups=4))
            board = tune.RemoteRunner(op, "host", f"127.0.0.1:{port}", "a-secret-of-many-letters", repeats=3)
            assert board.run([(4,)])[(4,)].status == "ok"
            stranger = tune.RemoteRunner(op, "host", f"127.0.0.1:{port}", "a-secret-of-many-lettres", repeats=3)
            found = stranger.run([(4,)])[(4,)]
            assert (found.status, found.detail) == ("device", "wrong token")
        finally:
            server.kill()
    gone = board.run([(2,)])[(2,)]
    assert gone.status == "device" and "does not answer" in gone.detail


@pytest.mark.slow
@pytest.mark.timeout(1800)  # zig builds a C library for each machine, then forty programs
@pytest.mark.parametrize("name", ["cortex-a53", "cortex-a72", "cortex-a76", "armv7"])
def test_kernels_for_other_machines(name):
    pytest.importorskip("ziglang", reason="needs netfit[cc]")
    m = ops.machine(name)
    z = ConvSizes(1, 5, 6, 7, 9, 3, 3, padding=(1, 1))
    made = [
        ops.Gemm.of(12, 20, 24), ops.Gemm.of(12, 20, 24, "int8"), ops.Conv2d(z), ops.Conv2d(z, "int8", "nhwc"),
        ops.BitConv2d(z, 2), ops.DepthwiseConv2d(ConvSizes(1, 5, 6, 7, 5, 3, 3, groups=5), "int8"),
        ops.PfpDense.of(3, 20, 9, relu=True), ops.PfpConv2d(z), ops.PfpReLU(1, 1, 3, 3), ops.PfpMaxPool2d(1, 2, 4, 4),
    ]  # fmt: skip
    for op in made:
        text, _ = op.program(op.default(m), m)
        assert ops.build_program(text, m).stat().st_size > 0
    if ops.emulator(m) is None:
        pytest.skip("no qemu-user here: the programs were built, not run")
    for op in made:
        outcome = tune.LocalRunner(op, name, repeats=1).run([op.default(m)])[op.default(m)]
        assert outcome.status == "ok", (op.name, outcome)


def test_spaces_say_why_and_defaults_are_valid():
    for op in (
        ops.Gemm.of(960, 960, 960),
        ops.Gemm.of(1, 7, 3),
        ops.Conv2d(CONVS[1], "int8"),
        ops.BitConv2d(CONVS[1]),
        ops.PfpDense.of(1, 8, 9),
    ):
        space, m = op.space(), ops.machine()
        assert space.why(op.default(m)) is None, op.name
        assert op.traffic(dict(zip(space.knobs, op.default(m), strict=True)), m)
    assert {"registers", "ok"} <= set(ops.Gemm.of(960, 960, 960).space().why_invalid())


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ops.parse("gem:8x8x8"), "did you mean 'gemm'"),
        (lambda: ops.parse("gemm:8x8"), "expected 3 sizes"),
        (lambda: ops.parse("gemm:8x8x8,fp16"), "no type 'fp16'"),
        (lambda: ops.machine("cortex-a99"), "no machine"),
        (lambda: ops.Gemm.of(8, 8, 70_000, "int8"), "can leave int32"),
        (lambda: ops.Kernel(ops.Gemm.of(8, 8, 8), (0, 14, 4, 1, 1, 1)), "breaks the rule 'registers'"),
        (lambda: ops.Kernel(ops.Gemm.of(8, 8, 8))(torch.zeros(8, 8)), "call pack"),
        (lambda: ops.Kernel(ops.Gemm.of(8, 8, 8))(torch.zeros(8, 9)), "takes"),
        (lambda: ops.Kernel(ops.Gemm.of(8, 8, 8)).pack(torch.zeros(9, 8)), "takes weights"),
    ],
)
def test_mistakes_are_named(call, text):
    with pytest.raises(ConfigError, match=text):
        call()


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(_build, "toolchain", lambda: None)
    _build._compiler.cache_clear()
    with pytest.raises(TargetUnavailable, match=r"no C compiler found: install gcc, or pip install 'netfit\[cc\]'"):
        ops.build_program("int main(void) { return 0; }", ops.machine())
    _build._compiler.cache_clear()


def test_building_twice_is_reading(tmp_path):
    m = ops.machine()
    first = ops.build_program("int main(void) { return 0; }", m)
    start = time.process_time()
    assert ops.build_program("int main(void) { return 0; }", m) == first
    assert time.process_time() - start < 1


def test_kernels_for_moment_rules():
    g = torch.Generator().manual_seed(6)
    mean, var = torch.randn(5, 12, generator=g), torch.rand(5, 12, generator=g)
    w, wv, b = (torch.rand(*shape, generator=g) for shape in ((7, 12), (7, 12), (7,)))
    kernels = MomentKernels()
    for given in (var, None):
        out, spread = kernels.linear(mean, given, w, wv, b, 0.1 * b)
        own = 0 if given is None else given @ w.square().T
        square = mean.square() if given is None else mean.square() + given
        assert torch.allclose(out, mean @ w.T + b, atol=1e-4)
        assert torch.allclose(spread, own + square @ wv.T + 0.1 * b, atol=1e-3)
    image, taps = torch.randn(2, 3, 6, 6, generator=g), torch.randn(4, 3, 3, 3, generator=g)
    out, spread = kernels.conv2d(image, None, taps, 0.1 * taps.square(), stride=2, padding=1)
    assert torch.allclose(out, torch.conv2d(image, taps, None, 2, 1), atol=1e-4)
    expected = torch.conv2d(image.square(), 0.1 * taps.square(), None, 2, 1)
    assert torch.allclose(spread, expected, atol=1e-3)
    w.mul_(2)  # a changed weight is packed again
    assert torch.allclose(kernels.linear(mean, var, w, wv)[0], mean @ w.T, atol=1e-4)


def test_operators_of_a_network():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.Conv2d(8, 8, 3, dilation=2), torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )  # fmt: skip
    found = operators(trace(net.eval(), torch.randn(1, 3, 7, 7)))
    assert list(found.values()) == [["0"], ["1", "2"], ["3"], ["6"]]
    assert [op.name.partition(" ")[0] for op in found] == ["conv2d", "conv2d", "depthwise", "gemm"]
    x = torch.randn(1, 8)
    kernel = ops.Kernel(next(op for op in found if op.name.startswith("gemm"))).pack(net[6].weight.detach().T)
    assert torch.allclose(kernel(x), x @ net[6].weight.T, atol=1e-5)
