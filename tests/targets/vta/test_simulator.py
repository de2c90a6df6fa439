import time

import numpy as np
import pytest

from netfit.errors import ArtifactError, ConfigError, TargetError
from netfit.targets.vta import Config, Conv, Knobs, Program, check, lower, simulate, times, why_invalid
from netfit.targets.vta._reference import execute_plainly
from netfit.targets.vta._simulator import execute
from netfit.targets.vta.isa import decode, disassemble, encode
from netfit.targets.vta.layout import pack_image, pack_weight, unpack_image

TOKENS = ("pop_prev", "pop_next", "push_prev", "push_next")


def run(case, strict="tvm"):
    program = lower(case.conv, case.knobs, case.core, strict=strict)
    words, stats = simulate(program, pack_image(case.x, case.core), pack_weight(case.w, case.core))
    return program, unpack_image(words, case.shape, case.core), stats


def test_500_random_programs_are_bit_exact(case):
    rng = np.random.default_rng(0)
    for number in range(500):
        strict = "isa" if number % 3 == 0 else "tvm"
        one = case(rng, strict)
        program, out, stats = run(one, strict)
        assert np.array_equal(out, one.expected), (one.conv, one.knobs, one.core)
        assert stats.counters["gemm_counter"] == one.conv.products
        assert np.array_equal(decode(encode(program.instructions)), program.instructions)


def test_the_executor_is_its_reference(case):
    rng, compared = np.random.default_rng(1), 0
    while compared < 10:
        one = case(rng, "isa", largest=5)
        program = lower(one.conv, one.knobs, one.core, strict="isa")
        if one.conv.products > 3000:
            continue
        inp, wgt = pack_image(one.x, one.core), pack_weight(one.w, one.core)
        assert np.array_equal(execute(program, inp, wgt), execute_plainly(program, inp, wgt))
        compared += 1


def test_the_image_may_be_the_right_operand(case):
    """Roles swapped: weights come as rows of the left operand, pixels as words of the right one."""
    core = Config(block_in=16, block_out=1, log_wgt=14, log_acc=13)  # words of 16 channels and one pixel
    conv = Conv(4, 6, 2, 3, 3, 3)
    knobs = Knobs(1, 4, 1, 3, 1, 2)
    assert why_invalid(conv, knobs, core, "isa", swap=True) is None
    rng = np.random.default_rng(2)
    image, weights = (rng.integers(-128, 128, (n, 1, 16)).astype(np.int8) for n in (2 * 24, 3 * 2 * 9))
    program = lower(conv, knobs, core, strict="isa", swap=True)
    out, _ = simulate(program, weights, image)
    x = image.reshape(2, 4, 6, 16).transpose(0, 3, 1, 2).reshape(1, 32, 4, 6)
    w = weights.reshape(3, 2, 3, 3, 16).transpose(0, 1, 4, 2, 3).reshape(3, 32, 3, 3)
    y = np.zeros((3, 2, 4), np.int64)
    for i in range(3):
        for j in range(3):
            y += np.einsum(
                "chw,kc->khw", x[0, :, i : i + 2, j : j + 4].astype(np.int64), w[:, :, i, j].astype(np.int64)
            )
    assert np.array_equal(out.reshape(3, 2, 4), np.clip(y >> 8, 0, 127))


def test_every_removed_token_is_noticed(case):
    """A lost push starves its queue, a lost pop leaves a token: neither is silently accepted."""
    rng = np.random.default_rng(3)
    for _ in range(100):
        one = case(rng)
        program = lower(one.conv, one.knobs, one.core)
        check(program)
        places = [(name, i) for name in TOKENS for i in np.flatnonzero(program.instructions[name])]
        for at in rng.permutation(len(places))[:12]:
            rows = program.instructions.copy()
            name, i = places[at]
            rows[name][i] = 0
            with pytest.raises(TargetError, match=r"deadlock|left over|race"):
                check(Program(one.core, rows, program.uops, program.words))


def test_a_missing_pair_of_tokens_is_a_race():
    """Where push and pop of one FIFO both go, counts still match: only the order of accesses tells."""
    program = lower(Conv(8, 8, 4, 4, 3, 3, pad_h=1, pad_w=1), Knobs(4, 8, 1, 2, 2, 1), Config())
    noticed = set()
    for pushes, pops, queue in (("push_next", "pop_prev", 0), ("push_prev", "pop_next", 1)):
        rows = program.instructions.copy()
        loads = (rows["opcode"] == 0) & (rows["mem"] != 0)
        products = (rows["opcode"] == 2) & (rows["reset"] == 0)
        pusher, popper = (loads, products) if queue == 0 else (products, loads)
        rows[pushes][np.flatnonzero(pusher & (rows[pushes] == 1))[2]] = 0
        rows[pops][np.flatnonzero(popper & (rows[pops] == 1))[2]] = 0
        with pytest.raises(TargetError, match="race: no token orders instruction") as e:
            check(Program(program.config, rows, program.uops, program.words))
        noticed.add(str(e.value))
    assert len(noticed) == 2


def test_a_deadlock_names_the_queues():
    program = lower(Conv(4, 4, 1, 1), Knobs(4, 4, 1, 1), Config())
    rows = program.instructions.copy()
    rows["push_next"][rows["opcode"] == 4] = 0
    with pytest.raises(TargetError, match=r"deadlock: .*compute at .*FINISH.*; store at .*STORE"):
        times(Program(program.config, rows, program.uops, program.words))


def test_wrong_programs_are_refused_and_not_run():
    program = lower(Conv(4, 4, 1, 1), Knobs(4, 4, 1, 1), Config())
    inp, wgt = np.zeros((16, 1, 16), np.int8), np.zeros((1, 16, 16), np.int8)
    for opcode, field, value, text in (
        (0, "sram", 65535, "local memory"),
        (0, "dram", 2**31 - 1, "main memory"),
        (2, "uop_end", 16000, "micro-ops"),
        (2, "iter_in", 5000, "local memory"),
        (1, "mem", 3, "does not know"),
        (1, "dram", 1000, "main memory"),
        (4, "alu_op", 7, "does not know"),
    ):
        rows = program.instructions.copy()
        rows[field][np.flatnonzero(rows["opcode"] == opcode)[-1 if field == "iter_in" else 0]] = value
        with pytest.raises(ConfigError, match=text):
            execute(Program(program.config, rows, program.uops, program.words), inp, wgt)
    with pytest.raises(ConfigError, match="the program takes int8"):
        execute(program, inp[:3], wgt)
    rows = program.instructions.copy()
    rows["sram"][0] = -1
    with pytest.raises(ConfigError, match="does not fit"):
        encode(rows)


def test_a_program_survives_its_file(tmp_path):
    program = lower(Conv(8, 8, 2, 2, 3, 3, pad_h=1, pad_w=1), Knobs(4, 8, 1, 1, 2, 1), Config.from_text("4x8"))
    program.save(tmp_path / "conv.npz")
    back = Program.load(tmp_path / "conv.npz")
    assert back.config == program.config and back.words == program.words
    assert np.array_equal(back.instructions, program.instructions) and np.array_equal(back.uops, program.uops)
    for content in (b"", b"PK\x05\x06" + bytes(18), b"x" * 100):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"bad\.npz is no VTA program"):
            Program.load(tmp_path / "bad.npz")


def test_the_listing_reads():
    program = lower(Conv(4, 4, 1, 1, 3, 3, pad_h=1, pad_w=1), Knobs(4, 4, 1, 1), Config())
    text = program.listing()
    assert "LOAD inp[0] <- dram[0] 4x4 stride 4 pad 1,1,1,1" in text
    assert "GEMM reset" in text and "ALU SHR imm 8" in text and text.splitlines()[-1].split()[1] == "FINISH"
    assert len(disassemble(program.instructions)) == len(program)


def test_time_grows_with_the_program_only():
    """Linear in instructions; wide bounds, because this is no benchmark."""
    conv = Conv(112, 112, 4, 16, 3, 3, pad_h=1, pad_w=1)
    program = lower(conv, Knobs(4, 16, 1, 1), Config())
    assert len(program) > 10_000
    start = time.process_time()
    stats = times(program)
    assert time.process_time() - start < 1.0
    assert stats.cycles > conv.products / 2 and 0 < stats.utilization < 1
