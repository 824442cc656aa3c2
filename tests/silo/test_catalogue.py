from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from silo.data.catalogue import Catalogue, CatalogueError, CatalogueItem, CatalogueMismatchError


def small() -> Catalogue:
    return Catalogue.from_items(
        [
            CatalogueItem(item_id="b", title="Bé", text="", attributes=("z", "x", "z", "")),
            CatalogueItem(item_id="10", title="Ten"),
            CatalogueItem(item_id="9", attributes=("x",)),
        ]
    )


def test_the_file_has_one_fixed_byte_string() -> None:
    lines = [
        '{"attributes":[],"item_id":"10","text":"","title":"Ten"}',
        '{"attributes":["x"],"item_id":"9","text":"","title":""}',
        '{"attributes":["x","z"],"item_id":"b","text":"","title":"Bé"}',
    ]
    expected = "".join(line + "\n" for line in lines).encode()
    assert small().encoded == expected
    assert small().sha256 == hashlib.sha256(expected).hexdigest()


def test_index_is_the_line_number_and_ids_sort_as_text() -> None:
    catalogue = small()
    assert catalogue.item_ids == ("10", "9", "b")
    assert [catalogue.index(item_id) for item_id in catalogue.item_ids] == [0, 1, 2]
    assert "9" in catalogue
    assert "8" not in catalogue
    with pytest.raises(CatalogueError, match="'8' is not in the catalogue"):
        catalogue.index("8")


def test_features_are_one_hots_of_sorted_attributes() -> None:
    catalogue = small()
    assert catalogue.attributes == ("x", "z")
    np.testing.assert_array_equal(catalogue.features(), [[0, 0], [1, 0], [1, 1]])


def test_saving_and_loading_keeps_everything(tmp_path: Path) -> None:
    path = small().save(tmp_path / "catalogues")
    assert path.name == f"{small().sha256}.jsonl"
    assert Catalogue.load(path, small().sha256) == small()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_bytes_than_the_plan_names_are_refused(tmp_path: Path) -> None:
    path = small().save(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"Ten", b"Tea"))
    with pytest.raises(CatalogueMismatchError, match=small().sha256):
        Catalogue.load(path, small().sha256)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="archipel data catalogue"):
        Catalogue.load(tmp_path / "absent.jsonl")


LINE = '{"attributes":["x"],"item_id":"1","text":"","title":""}\n'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no items"),
        (LINE[:-1].encode(), "cut short"),
        (LINE.encode() * 2, "stands twice"),
        (LINE.replace('"1"', '"2"').encode() + LINE.encode(), "out of order"),
        (LINE.replace(":", ": ").encode(), "canonical form"),
        (LINE.replace('["x"]', '["x","x"]').encode(), "canonical form"),
        (LINE.replace('"x"', '"y","x"').encode(), "canonical form"),
        (LINE.replace('"text":"",', "").encode(), "canonical form"),
        (LINE.replace("\n", "\r\n").encode(), "canonical form"),
        (LINE.replace("{", '{"price":3,').encode(), "price"),
        (LINE.replace('"1"', "1").encode(), "item_id"),
        (LINE.replace('"1"', '""').encode(), "item_id"),
        (LINE.replace('"1"', '"' + "i" * 257 + '"').encode(), "item_id"),
        (LINE.replace('"1"', '" 1"').encode(), "blanks"),
        (b"[]\n", "not a catalogue item"),
        (b"\xff\n", "not a catalogue item"),
        (b"\n" + LINE.encode(), "where:1"),
    ],
)
def test_bytes_of_a_peer_that_are_not_a_catalogue_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        Catalogue.parse(data, where="where")


def test_lines_are_plain_json() -> None:
    parsed = [json.loads(line) for line in small().encoded.splitlines()]
    assert [item["item_id"] for item in parsed] == ["10", "9", "b"]
