"""Networks and classifiers that know when they are wrong.

`TANClassifier` and `MDLDiscretizer` (from `netfit.bayes.tan`) are scikit-learn estimators for tables; scikit-learn is
imported when one of them is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netfit.bayes.tan import MDLDiscretizer, TANClassifier

__all__ = ["MDLDiscretizer", "TANClassifier"]


def __getattr__(name: str) -> Any:
    if name in ("MDLDiscretizer", "TANClassifier"):
        from netfit.bayes import tan

        return getattr(tan, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
