from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from federation.messages import (
    BODIES,
    MAX_POST_BYTES,
    BlobRef,
    Cancel,
    Envelope,
    PostKind,
    parse_envelope,
    plan_of,
    proposal_id,
    seal,
    verify_envelope,
)
from policies.signing import PrivateKey
from privacy.errors import ProtocolError, TrustError
from tests.contracts.board_scene import Scene, scene_plan

KEY = PrivateKey.generate()
JOB = "ab" * 16


def cancel(**more: object) -> Envelope:
    return seal(Cancel(), job=JOB, sender="a", identity=KEY).model_copy(update=more)


def test_every_kind_has_one_closed_body() -> None:
    assert set(BODIES) == set(PostKind)
    assert len(set(BODIES.values())) == len(BODIES)
    for body in BODIES.values():
        assert body.model_config["extra"] == "forbid"
        assert body.model_config["frozen"]


def test_a_post_survives_its_bytes_and_verifies() -> None:
    post = cancel()
    assert verify_envelope(parse_envelope(post.to_bytes()), KEY.public_key) == post
    assert seal(Cancel(), job=JOB, sender="a", identity=KEY) == post  # resent bytes are the same bytes


@pytest.mark.parametrize(
    "change",
    [
        {"kind": PostKind.FAILED},
        {"job": "cd" * 16},
        {"round": 1},
        {"attempt": 1},
        {"sender": "b"},
    ],
)
def test_the_signature_covers_every_field(change: dict[str, object]) -> None:
    with pytest.raises(TrustError, match="not signed by its charter identity"):
        verify_envelope(cancel(**change), KEY.public_key)


def test_another_identity_signs_for_nobody_else() -> None:
    with pytest.raises(TrustError):
        verify_envelope(cancel(), PrivateKey.generate().public_key)


@pytest.mark.parametrize(
    "change",
    [{"kind": "exec"}, {"body": {"code": 1}}, {"extra": 1}, {"round": -1}, {"job": "x"}, {"sender": "../x"}],
)
def test_what_is_not_in_the_vocabulary_is_refused(change: dict[str, object]) -> None:
    document = json.loads(cancel().to_bytes()) | change
    with pytest.raises(ProtocolError, match="not in the vocabulary"):
        parse_envelope(json.dumps(document).encode())


def test_oversize_and_other_spellings_are_refused() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        parse_envelope(b" " * (MAX_POST_BYTES + 1))
    with pytest.raises(ProtocolError, match="canonical"):
        parse_envelope(cancel().to_bytes() + b" ")


def test_a_job_is_named_by_its_signed_proposal() -> None:
    one, two = Scene(scene_plan()), Scene(scene_plan())
    assert proposal_id(one.proposal) == one.start.job
    assert one.start.job != two.start.job
    assert plan_of(one.proposal) == one.plan


def test_a_proposal_with_an_impossible_plan_says_what_is_wrong() -> None:
    scene = Scene(scene_plan())
    broken = scene.proposal.model_copy(
        update={"body": {**scene.proposal.body, "plan": {**scene.proposal.body["plan"], "silos": ["a"]}}}
    )
    with pytest.raises(ProtocolError, match="the proposed plan is not valid"):
        plan_of(broken)


@pytest.mark.parametrize("name", ["../etc", "A", "", "a/b"])
def test_a_blob_is_never_a_path(name: str) -> None:
    with pytest.raises(ValidationError):
        BlobRef.model_validate({"job": JOB, "kind": "stream", "sender": name})
    with pytest.raises(ValidationError):
        BlobRef.model_validate({"job": name or "/", "kind": "stream", "sender": "a"})
