"""What may be spent: epsilon, delta and the privacy filter that decides.

A filter and its orders are fixed for an account's life: which mechanisms it can price, and how, must not
depend on what has been released.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from privacy.events import Record

MAX_ORDERS = 8


class ZcdpFilter(Record):
    """Σρ against one bound: exact for unsampled Gaussian noise, fully adaptive; refuses sampled events."""

    kind: Literal["zcdp"] = "zcdp"


class RenyiFilter(Record):
    """Rényi divergence at a few fixed orders, each converted with its share of delta.

    Attributes:
        orders: 1 to 8 orders above 1, ascending. Every order costs a part of delta, so few are better.
    """

    kind: Literal["renyi"] = "renyi"
    orders: Annotated[tuple[float, ...], Field(min_length=1, max_length=MAX_ORDERS)]

    @field_validator("orders")
    @classmethod
    def _ascending_above_one(cls, orders: tuple[float, ...]) -> tuple[float, ...]:
        if any(not math.isfinite(order) or not 1 < order <= 4096 for order in orders):
            raise ValueError("orders lie above 1 and at most at 4096")
        if list(orders) != sorted(set(orders)):
            raise ValueError("orders are written in ascending order, each once")
        return orders


FilterSpec = Annotated[ZcdpFilter | RenyiFilter, Field(discriminator="kind")]


class Budget(Record):
    """The most that one population's account may ever spend.

    Attributes:
        epsilon: bound on the privacy loss.
        delta: probability with which the bound may fail; 0.99 of it pays for mechanisms, the rest is the
            account of additive terms.
        filter: what decides whether one more release fits.
    """

    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    filter: FilterSpec
