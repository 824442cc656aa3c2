"""What is sealed to a device opens there, as what it was, and nowhere else."""

from __future__ import annotations

import pytest

from privacy.devices import PREFIX, DeviceAddress, DeviceKey, DeviceKeyError, DeviceSealError

KEY = DeviceKey.from_bytes(bytes(range(1, 33)))


def test_what_is_sealed_opens_on_that_device_as_what_it_was() -> None:
    address = DeviceAddress.parse(str(KEY.address))
    sealed = address.seal(b"numbers", b"part")
    assert len(sealed) == len(b"numbers") + 48
    assert KEY.open(sealed, b"part") == b"numbers"
    assert address.seal(b"numbers", b"part") != sealed
    for key, content, context in (
        (DeviceKey.generate(), sealed, b"part"),
        (KEY, sealed, b"another part"),
        (KEY, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"part"),
        (KEY, sealed[:40], b"part"),
        (KEY, b"", b"part"),
    ):
        with pytest.raises(DeviceSealError):
            key.open(content, context)


def test_a_key_comes_back_from_its_bytes() -> None:
    again = DeviceKey.from_bytes(KEY.private_bytes())
    assert str(again.address) == str(KEY.address)
    assert str(DeviceKey.generate().address) != str(KEY.address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PREFIX,
        "é" * 43,
        PREFIX + "A" * 42,
        PREFIX + "A" * 44,
        "A" * 43,
        PREFIX + "+" * 43,
        PREFIX + "B" * 43,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(DeviceKeyError):
        DeviceAddress.parse(text)


def test_nothing_is_sealed_to_a_point_of_low_order() -> None:
    with pytest.raises(DeviceKeyError, match="low order"):
        DeviceAddress(bytes(32)).seal(b"numbers", b"part")


def test_a_private_key_has_32_bytes() -> None:
    with pytest.raises(DeviceKeyError, match="31"):
        DeviceKey.from_bytes(bytes(31))
