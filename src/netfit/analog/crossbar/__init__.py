"""Layers whose weights sit in resistive memory: programming, drift, stuck cells, read noise, converters."""

from ._crossbar import Crossbar
from ._devices import PCM, Device, GenericDevice, MiloReRAM, WanReRAM, device, device_names
from ._programmed import Programmed, program
from ._study import ChipStudy, over_time

__all__ = [
    "PCM",
    "ChipStudy",
    "Crossbar",
    "Device",
    "GenericDevice",
    "MiloReRAM",
    "Programmed",
    "WanReRAM",
    "device",
    "device_names",
    "over_time",
    "program",
]
