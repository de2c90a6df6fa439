"""The layers that DeepBench measures, as plain sizes."""

import json
from pathlib import Path

from netfit.errors import ArtifactError, ConfigError, did_you_mean

from ._files import Source, find

__all__ = ["deepbench"]

PROBLEMS = Source("deepbench_problems.json", 17_414, "Apache-2.0", "the repository baidu-research/DeepBench")


def deepbench(kind: str, chosen: str, root: str | Path | None = None) -> list[dict[str, int]]:
    """Problems of Baidu's DeepBench, each once, in their order.

    Args:
        kind: ``"conv"``, ``"gemm"``, ``"rnn"`` or ``"sparse_gemm"``.
        chosen: ``"training_set"``, ``"inference_server_set"`` or ``"inference_device_set"``.
        root: folder to look in first.

    Returns:
        One dictionary of sizes per problem; a convolution has w, h, c, n, k, filter_w, filter_h, pad_w, pad_h,
        stride_w and stride_h.

    Raises:
        ConfigError: no such kind or set.
        DataNotFound: the file is nowhere.
        ArtifactError: it is damaged.
    """
    path = find("deepbench", (PROBLEMS,), root)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        for known, name in ((body, kind), (body.get(kind, {}), chosen)):
            if name not in known or name == "columns":
                raise ConfigError(f"DeepBench has no {name!r}; {did_you_mean(name, set(known) - {'columns'})}")
        columns, rows = body[kind]["columns"], [tuple(int(x) for x in row) for row in body[kind][chosen]]
        return [dict(zip(columns, row, strict=True)) for row in dict.fromkeys(rows)]
    except ConfigError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise ArtifactError(f"{path} is no list of DeepBench problems: {e}") from e
