"""Who makes and understands what each leg of a vertical job carries, by purpose."""

from __future__ import annotations

from federation.legs.legs import LegPurpose
from silo.jobs.leg_contents import LegContent
from silo.vertical.alignment.content import AlignmentContent
from silo.vertical.encoder.content import EncoderContent
from silo.vertical.moments.content import MomentsContent

_alignment, _moments = AlignmentContent(), MomentsContent()

CONTENTS: dict[LegPurpose, LegContent] = {
    LegPurpose.HOP: _alignment,
    LegPurpose.BLINDED: _alignment,
    LegPurpose.SLOTS: _alignment,
    LegPurpose.KEY: _moments,
    LegPurpose.BLOCK: _moments,
    LegPurpose.MOMENTS: _moments,
    LegPurpose.FEATURES: EncoderContent(),
}
