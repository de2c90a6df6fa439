"""A Ray cluster as a context: joined or started, and left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from netfit.errors import ConfigError, require

__all__ = ["ray_cluster"]


@contextmanager
def ray_cluster(address: str) -> Iterator[Any]:
    """The module `ray`, connected to a cluster inside the ``with``.

    Args:
        address: of a running cluster, such as ``"ray://host:10001"`` or ``"auto"``; ``"local"`` starts one here.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: there is no cluster at that address.
    """
    ray = require("ray", "ray")
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(None if address == "local" else address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as e:
            raise ConfigError(f"no Ray cluster at {address!r}: {str(e).splitlines()[0]}") from e
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()
