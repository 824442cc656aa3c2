"""Optional parts of the installation."""

from __future__ import annotations

from importlib.util import find_spec

from privacy.errors import HostError


class MissingExtraError(HostError):
    """A command needs packages that were not installed with Archipel."""

    code = "missing_extra"


def require_extra(extra: str, *modules: str) -> None:
    """Say what to install where something is missing.

    Args:
        extra: the extra's name in ``pyproject.toml``.
        modules: what it brings.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"this command needs {' and '.join(missing)}, not installed here",
            remedy=f"pip install 'archipel[{extra}]'",
        )
