"""What a generator has to know of the processor it writes for."""

from dataclasses import dataclass

from netfit.env import caches
from netfit.errors import ConfigError, did_you_mean

__all__ = ["Machine", "machine"]


@dataclass(frozen=True)
class Machine:
    """A processor.

    Attributes:
        name: ``"host"``, or the cross compiler's target and model.
        lanes: 32-bit words of a vector.
        registers: vector registers.
        l1, l2: bytes of a core's data caches.
        flags: of the cross compiler; none for the host.
        matrix_unit: whether it has one (AMX with int8 and bf16) and lends it to programs.
    """

    name: str
    lanes: int
    registers: int
    l1: int
    l2: int
    flags: tuple[str, ...] = ()
    matrix_unit: bool = False


def _arm(name: str, l1: int, l2: int, wide: bool, *model: str) -> Machine:
    target = "aarch64-linux-musl" if wide else "arm-linux-musleabihf"
    return Machine(name, 4, 32 if wide else 16, l1 << 10, l2 << 10, ("-target", target, *model))


_CROSS = {
    m.name: m
    for m in (
        _arm("cortex-a53", 32, 512, True, "-mcpu=cortex_a53"),
        _arm("cortex-a72", 32, 1024, True, "-mcpu=cortex_a72"),
        _arm("cortex-a76", 64, 512, True, "-mcpu=cortex_a76"),
        _arm("armv7", 32, 512, False, "-mcpu=cortex_a7"),
    )
}


def machine(name: str = "host") -> Machine:
    """A processor by name: ``"host"``, ``"cortex-a53"``, ``"cortex-a72"``, ``"cortex-a76"`` or ``"armv7"``.

    Raises:
        ConfigError: another name.
        TargetUnavailable: there is no C compiler to ask the host with.
    """
    if name in _CROSS:
        return _CROSS[name]
    if name != "host":
        raise ConfigError(f"no machine {name!r}; {did_you_mean(name, ['host', *_CROSS])}")
    from netfit.kernels import compile_c
    from netfit.kernels._ops import source
    from netfit.kernels.dense._library import library

    lanes, size = int(library("fp32").dense_lanes()), caches()
    registers = 16 if lanes == 8 else 32
    code = compile_c(source("matrix_unit.c"), "matrix_unit")
    return Machine(
        "host", lanes, registers, size["l1"], size.get("l2", 8 * size["l1"]), matrix_unit=bool(code.matrix_unit())
    )
