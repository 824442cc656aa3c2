"""Recurrent layers whose gradients can be told apart by user: Opacus' own, cell by cell.

``nn.GRU`` and ``nn.LSTM`` run all places in one kernel that no hook looks into.
"""

from __future__ import annotations

from opacus.layers import DPGRU as GRU
from opacus.layers import DPLSTM as LSTM

__all__ = ["GRU", "LSTM"]
