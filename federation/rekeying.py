"""A new TLS key for a party: made beside the present one, which serves until an amendment pins the other.

::

    rekey            keys/tls-next.pem, card-next.json
    charter amend --member card-next.json, signed as any amendment
    silo join, charter install: keys/tls.pem and card.json are replaced by them
"""

from __future__ import annotations

import os
from pathlib import Path

from federation.identity import Party, load_tls, write_new
from federation.transport.tls import TlsIdentity
from policies.charters.charter import Card
from policies.files import NEXT_CARD, NEXT_TLS, save_card


def rekey(directory: Path) -> Card:
    """Make a party's next TLS key and the card that tells others of it; the same again until it is in use.

    Args:
        directory: the party's; its agent or coordinator may be running.

    Raises:
        PartyFilesError: no party lives there, or a file cannot be read.
        OSError: the disk is full or not writable.
    """
    party = Party.load(directory)
    path = directory / NEXT_TLS
    if not path.exists():
        fresh = TlsIdentity.generate(party.name)
        part = path.with_name(f".{path.name}")
        part.unlink(missing_ok=True)
        write_new(part, fresh.key_pem + fresh.certificate_pem, mode=0o600)
        os.replace(part, path)
    card = Card.issue(
        party.identity,
        role=party.role,
        name=party.name,
        certificate_der=load_tls(path).certificate_der,
        administrators=party.card.administrators,
        host=party.card.host,
        port=party.card.port,
    )
    save_card(directory / NEXT_CARD, card)
    return card
