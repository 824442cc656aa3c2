"""``agent.toml``: how an agent runs on its machine. What it may do stands in ``policy.yaml``, never here."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privacy.errors import DataError

DEFAULT_AGENT_TOML = """\
# How this agent runs on this machine. What it may do stands in policy.yaml.
log_level = "info"              # debug | info | warning | error
# coordinator_host = "..."      # only where the coordinator is reached by another way than the charter says
# coordinator_port = 8443
# activation_cache_megabytes = 1024   # memory for item texts in jobs that train a text encoder's last layers
"""


class AgentConfig(BaseModel):
    """Settings of one agent.

    Attributes:
        log_level: least level written to ``logs/agent.log`` and standard error.
        coordinator_host: reach the coordinator here instead of at the charter's address (tunnels).
        coordinator_port: likewise.
        activation_cache_megabytes: memory for what frozen layers of a text encoder made of items, in jobs
            that train its last ones; what does not fit is computed again, with the same result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    coordinator_host: str | None = None
    coordinator_port: int | None = Field(default=None, ge=1, le=65535)
    activation_cache_megabytes: int = Field(default=1024, ge=1, le=1 << 20)


def load_config(directory: Path) -> AgentConfig:
    """Read ``agent.toml``; defaults where there is none.

    Raises:
        DataError: not TOML, an unknown setting, a wrong value.
    """
    path = directory / "agent.toml"
    if not path.exists():
        return AgentConfig()
    try:
        return AgentConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"not TOML: {error}", where=str(path), remedy="mend the line") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            where=str(path),
            remedy="known settings: " + ", ".join(AgentConfig.model_fields),
        ) from error
