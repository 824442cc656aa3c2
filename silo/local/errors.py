"""What can be wrong with a silo's own models."""

from __future__ import annotations

from privacy.errors import DataError


class LocalPartsError(DataError):
    """Local parts that are not there, are damaged, or were made of other rows."""

    code = "local_parts"
