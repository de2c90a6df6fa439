"""Layers on analog arrays whose sums saturate while they are taken, and the order in which rows are added up."""

from ._mac import SaturatingMAC, brainscales2
from ._order import balanced_order, mac_layers, order_rows
from ._study import OrderStudy, compare_orders

__all__ = [
    "OrderStudy",
    "SaturatingMAC",
    "balanced_order",
    "brainscales2",
    "compare_orders",
    "mac_layers",
    "order_rows",
]
