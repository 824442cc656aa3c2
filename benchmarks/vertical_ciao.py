"""What two partners bring a label silo on ciao: ``vertical_movielens.py`` on another set.

ARCHIPEL_DATA=PATH python benchmarks/vertical_ciao.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import vertical_movielens
from vertical_movielens import show

__all__ = ["main", "show"]


def main(arguments: Sequence[str] | None = None) -> int:
    return vertical_movielens.main(arguments, name="vertical_ciao", default_set="ciao")


if __name__ == "__main__":
    sys.exit(main())
