"""Is the policy found for one piece of hardware the one for another, too? The same search on each, and a table."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from netfit.search import Row, pareto_mask

from ._cost import Cost
from ._search import Search

__all__ = ["specialisation"]

SHOWN = 12  # policies of each search that are tried on the other targets


def specialisation(searches: Mapping[str, Search]) -> dict[str, Any]:
    """Cost the best policies of every search on every other target.

    Args:
        searches: target name -> a finished search for it; all with one goal and the same network.

    Returns:
        ``targets``; ``score[on][found_for]``: the best score within the goal on one target among the policies found
        for another, None where not one of them meets it; ``policies``: of each search the trial, its score, and its
        cost ratio on every target.
    """
    names = list(searches)
    policies = {found: [_everywhere(searches, found, row) for row in _front(searches[found])] for found in names}
    score: dict[str, dict[str, float | None]] = {}
    for on in names:
        goal = searches[on].goal
        score[on] = {
            found: max((p["score"] for p in policies[found] if p["ratio"][on] <= goal), default=None) for found in names
        }
    best = [on for on in names if _leads(score[on], on)]
    return {"targets": names, "score": score, "policies": policies, "diagonal_best": best}


def _front(search: Search) -> list[Row]:
    """Policies of a search that no other one beats in score and cost: around the goal first."""
    rows = [r for r in search.study.trials() if r.state == "complete" and "cost" in r.attrs]
    points = [[r.value or 0.0, r.constraints["latency"]] for r in rows]
    front = [r for r, kept in zip(rows, pareto_mask(points, [True, False]), strict=True) if kept] if rows else []
    return sorted(front, key=lambda r: abs(r.constraints["latency"]))[:SHOWN]


def _everywhere(searches: Mapping[str, Search], found: str, row: Row) -> dict[str, Any]:
    home = searches[found]
    candidate = home.space.candidate(row.params)
    ratios = {}
    for on, search in searches.items():

        def measure(search: Search = search) -> dict[str, Any]:
            return asdict(search.meter.cost(home.evaluator.build(candidate)))

        cost = row.attrs["cost"] if on == found else search.memo.call([home.identity, on, asdict(candidate)], measure)
        ratios[on] = Cost(**cost).ratio
    return {"number": row.number, "score": row.value, "ratio": ratios}


def _leads(scores: Mapping[str, float | None], own: str) -> bool:
    mine = scores[own]
    return mine is not None and all(s is None or s <= mine for s in scores.values())
