"""Artefact metadata: its round trip, and the reader of ONNX files that loads no library."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icnet_deploy.errors import ModelError
from icnet_deploy.integrity import KEY
from icnet_deploy.labels import CAMVID, CITYSCAPES
from icnet_deploy.metadata import SCHEMA, ArtefactMetadata, read_onnx_metadata

PLAIN = ArtefactMetadata(CITYSCAPES, (1024, 2048), "labels", "fp32")
FULL = ArtefactMetadata(
    CAMVID,
    None,
    "logits",
    "int8",
    network={"stages": "sub124", "width": 0.5},
    preprocessing={"mean": [123.675, 116.28, 103.53], "channels": "rgb"},
    weights_sha256="ab" * 32,
    parent_sha256="cd" * 32,
    stride=8,
    upsampling="half-pixel",
    min_side=32,
    training_data="367 images of camvid train — and 2000 scenes",
    calibration_images=("ef" * 32, "01" * 32),
    tools={"torch": "2.9.0"},
)


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, content):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(key, value):
    """A `metadata_props` entry of a ModelProto."""
    return field(14, field(1, key.encode()) + field(2, value.encode()))


HEAD = b"\x08\x0a" + field(2, b"icnet-deploy") + field(7, bytes(300)) + field(8, b"\x10\x11")
OURS = HEAD + entry("other", "value") + entry(KEY, FULL.to_json())


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("metadata", [PLAIN, FULL])
def test_the_json_form_is_read_back_as_an_equal_value(metadata):
    assert ArtefactMetadata.from_json(metadata.to_json()) == metadata
    assert json.loads(metadata.to_json())["schema"] == metadata.schema


@pytest.mark.parametrize(
    ("change", "schema"),
    [
        ({}, 1),
        ({"stride": 8, "min_side": 32, "side_multiple": 32}, 1),
        ({"upsampling": "half-pixel"}, SCHEMA),
        ({"upsampling": "none"}, SCHEMA),
        ({"fit": "letterbox"}, SCHEMA),
        ({"threshold": 0.5}, SCHEMA),
    ],
)
def test_what_an_older_reader_would_misread_has_another_schema(change, schema):
    assert json.loads(replace(PLAIN, **change).to_json())["schema"] == schema


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)
@given(
    size=st.none() | st.tuples(st.integers(64, 9999), st.integers(64, 9999)),
    head=st.sampled_from(["logits", "labels"]),
    precision=st.sampled_from(["fp32", "fp16", "int8", "int8-ort"]),
    network=st.dictionaries(st.text(), values, max_size=3),
    preprocessing=st.dictionaries(st.text(), values, max_size=3),
    training_data=st.none() | st.text(),
    calibration_images=st.lists(st.text(), max_size=3).map(tuple),
    tools=st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_every_value_survives_the_round_trip(**fields):
    metadata = ArtefactMetadata(label_set=CITYSCAPES, **fields)
    assert ArtefactMetadata.from_json(metadata.to_json()) == metadata


def test_a_field_of_a_later_release_is_refused_since_labels_may_depend_on_it():
    value = json.loads(PLAIN.to_json()) | {"channels": "bgr"}
    with pytest.raises(ModelError, match=r'holds "channels", which .* not know.*: upgrade icnet'):
        ArtefactMetadata.from_json(json.dumps(value))


def test_a_file_that_says_no_rule_of_upsampling_is_one_of_aligned_corners():
    value = json.loads(FULL.to_json())
    del value["upsampling"], value["min_side"]
    metadata = ArtefactMetadata.from_json(json.dumps(value))
    assert (metadata.upsampling, metadata.min_side) == ("aligned-corners", 64)


def test_a_newer_schema_is_refused_with_the_remedy():
    value = {"schema": SCHEMA + 1, "something": "else"}
    with pytest.raises(ModelError, match=f"schema {SCHEMA + 1}.*upgrade icnet-deploy"):
        ArtefactMetadata.from_json(json.dumps(value))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": None},
        {"schema": "one"},
        {"schema": float("inf")},
        {"size": "big"},
        {"size": [1024]},
        {"size": 1024},
        {"label_set": None},
        {"label_set": {"name": "x", "names": ["a"], "palette": []}},
        {"calibration_images": 3},
        {"calibration_images": "ab"},
        {"calibration_images": [1]},
        {"size": ["1024", "2048"]},
        {"size": [1024.7, 2048]},
        {"size": [True, 2048]},
        {"size": [1024, 2048, 3]},
        {"size": [0, 2048]},
        {"stride": 4.0},
        {"stride": 0},
        {"upsampling": "bicubic"},
        {"upsampling": None},
        {"upsampling": ["none"]},
        {"min_side": 0},
        {"min_side": 64.0},
        {"min_side": True},
        {"head": ["logits"]},
        {"precision": None},
        {"network": []},
        {"tools": "torch"},
        {"weights_sha256": 3},
        {"digest": None},
        {"digest": "ab" * 32},
        {"stamped": True},
        {"label_set": {"name": "x", "names": "ab", "palette": [[0, 0, 0], [1, 1, 1]]}},
        {"label_set": {"name": "x", "names": [1], "palette": [[0, 0, 0]]}},
        {"label_set": {"name": "x", "names": ["a"], "palette": [[True, 0, 0]]}},
        {"label_set": {"name": None, "names": ["a"], "palette": [[0, 0, 0]]}},
    ],
)
def test_a_field_of_a_wrong_kind_is_refused(change):
    with pytest.raises(ModelError, match="is not what `icnet export` writes"):
        ArtefactMetadata.from_json(json.dumps(json.loads(FULL.to_json()) | change))


@pytest.mark.parametrize("name", ["schema", "size", "label_set", "head", "precision"])
def test_a_field_that_is_missing_is_refused(name):
    value = json.loads(FULL.to_json())
    del value[name]
    with pytest.raises(ModelError, match=name):
        ArtefactMetadata.from_json(json.dumps(value))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"schema"'])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ModelError, match="is not what `icnet export` writes"):
        ArtefactMetadata.from_json(text)


def test_our_file_is_read(file):
    assert read_onnx_metadata(file(OURS)) == FULL
    assert read_onnx_metadata(str(file(OURS))) == FULL


def test_every_cut_is_refused(file):
    for end in range(len(OURS)):
        with pytest.raises(ModelError):
            read_onnx_metadata(file(OURS[:end]))


def test_a_file_written_by_the_onnx_package_is_read_and_its_cuts_are_refused(file, tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.UINT8
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["labels"])],
        "tiny",
        [helper.make_tensor_value_info("image", kind, ["N", 4, 4, 3])],
        [helper.make_tensor_value_info("labels", kind, ["N", 4, 4, 3])],
    )
    model = helper.make_model(graph)
    with pytest.raises(
        ModelError, match=r"not one that icnet-deploy wrote.*icnet adopt.*icnet export"
    ):
        read_onnx_metadata(file(model.SerializeToString()))
    helper.set_model_props(model, {KEY: PLAIN.to_json()})
    content = model.SerializeToString()
    assert read_onnx_metadata(file(content)) == PLAIN
    for end in range(0, len(content), 7):
        with pytest.raises(ModelError):
            read_onnx_metadata(file(content[:end]))


def test_a_cut_inside_the_weights_is_called_a_cut(file):
    with pytest.raises(ModelError, match="cut off"):
        read_onnx_metadata(file(HEAD[:100]))


@pytest.mark.parametrize(
    "content",
    [
        b"hello, this is a text file\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"PK\x03\x04" + bytes(range(200)),
        b"\x93NUMPY\x01\x00",
        b"\xff" * 64,
        b"\x00" * 64,
    ],
)
def test_another_kind_of_file_is_refused(content, file):
    with pytest.raises(ModelError, match="is not a whole ONNX file"):
        read_onnx_metadata(file(content))


def test_an_empty_file_is_refused(file):
    with pytest.raises(ModelError, match="no graph"):
        read_onnx_metadata(file(b""))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        read_onnx_metadata(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="it is a folder; name a file in it"):
        read_onnx_metadata(tmp_path)


@pytest.mark.parametrize(
    "broken",
    [
        b"\x80",  # ends inside a number
        b"\x0a",  # a key without a length
        b"\x0a\x0c" + KEY.encode()[:3],  # a key longer than its field
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 64 bits
        b"\xff" * 12,  # a number of more than 64 bits
    ],
)
def test_a_broken_entry_in_a_whole_file_is_refused(broken, file):
    with pytest.raises(ModelError):
        read_onnx_metadata(file(HEAD + field(14, broken)))


def test_our_key_with_a_broken_value_is_refused(file):
    with pytest.raises(ModelError, match="is not what `icnet export` writes"):
        read_onnx_metadata(file(HEAD + entry(KEY, "{")))


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_no_content_does_anything_but_be_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    for whole in (content, HEAD + content, HEAD + field(14, content)):
        path.write_bytes(whole)
        with pytest.raises(ModelError):
            read_onnx_metadata(path)
