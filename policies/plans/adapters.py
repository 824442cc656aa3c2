"""What people decide about a trained text encoder, and what stands in the plan where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from privacy.errors import UsageError

PACKAGED_OUTPUTS: Final = 768
"""Queries and values of one layer of the encoder that the extra ``language`` brings."""


@dataclass(frozen=True, kw_only=True)
class AdapterDraft:
    """A part of :class:`policies.plans.drafting.Draft`.

    Attributes:
        adapter: kind of the adapter; left out: the encoder stays as it is.
        adapter_rank: of it.
        adapter_layers: last layers of the encoder that have one.
        adapter_outputs: see :class:`policies.plans.models.EncoderAdapter`; left out: of the packaged encoder.
        adapter_alpha: LoRA's.
        adapter_places: newest items of a history that it reads in a step.
        adapter_tokens: most of a text that it reads.
        adapter_columns: see :class:`policies.plans.models.EncoderAdapter`; left out: every silo trains all.
    """

    adapter: Literal["ffa_lora", "fed_sb"] | None = None
    adapter_rank: int | None = None
    adapter_layers: int | None = None
    adapter_outputs: int | None = None
    adapter_alpha: float | None = None
    adapter_places: int | None = None
    adapter_tokens: int | None = None
    adapter_columns: Mapping[str, int] | None = None

    def adapter_section(self) -> dict[str, Any] | None:
        """``model.encoder_adapter``; None where the plan has none.

        Raises:
            UsageError: something is said of an adapter, and none is asked for.
        """
        fields = {
            "rank": self.adapter_rank,
            "layers": self.adapter_layers,
            "outputs": self.adapter_outputs,
            "alpha": self.adapter_alpha,
            "places": self.adapter_places,
            "tokens": self.adapter_tokens,
            "columns": self.adapter_columns,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        if self.adapter is None:
            if given:
                raise UsageError(
                    "there is no adapter to say this of",
                    where=", ".join(f"--adapter-{name}" for name in given),
                    remedy="write --adapter ffa_lora or fed_sb, or leave it out",
                )
            return None
        usual = {"outputs": PACKAGED_OUTPUTS} if self.adapter == "ffa_lora" else {}
        return {"kind": self.adapter, "rank": 4, "layers": 1} | usual | given
