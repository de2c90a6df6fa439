"""``netfit models``: the networks that come with netfit."""

from dataclasses import asdict

from ._options import Json
from ._output import Output, answer, table

__all__ = ["models"]


def models(*, as_json: Json = False) -> Output:
    """Built-in networks, the inputs they are made for and how long they are trained; your own work as well."""
    from netfit.models import default_in_shape, names, recipe

    rows = [{"name": n, "in_shape": default_in_shape(n), "recipe": asdict(recipe(n))} for n in names()]
    cells = [(n, ",".join(map(str, default_in_shape(n) or ())), str(recipe(n).epochs)) for n in names()]
    return answer(as_json, {"models": rows}, table(("model", "input", "epochs"), cells))
