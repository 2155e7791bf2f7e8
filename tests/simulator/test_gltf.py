"""What glTF files hold is what is drawn: random ones against a plain slow reader, others named."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.meshes import load_soup
from tests.factories.gltf_files import Glb, SlowReader, random_glb

QUAD = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
CORNERS = np.array([0, 1, 2, 0, 2, 3], np.uint16)[:, None]

#: 16x16 texels of Basis Universal (ETC1S): blue in the upper left quarter, red elsewhere.
KTX2 = base64.b64decode(
    "q0tUWCAyMLsNChoKAAAAAAEAAAAQAAAAEAAAAAAAAAAAAAAAAQAAAAEAAAABAAAAaAAAACwAAACUAAAAJAAAALgAAAAA"
    "AAAAjwAAAAAAAABHAQAAAAAAAAYAAAAAAAAAAAAAAAAAAAAsAAAAAAAAAAIAKACjAQIAAwMAAAgAAAAAAAAAAAA/AAAA"
    "AAAAAAAA/////x8AAABLVFh3cml0ZXIAQmFzaXMgVW5pdmVyc2FsIDIuMTAAAAIAAgAuAAAACQAAADAAAAAAAAAAAAAA"
    "AAAAAAAGAAAAAAAAAAAAAAAewJQAAAAAAAByQmUBTAkYAAAAAGEBkOwIwAwAAAAAAACSCIAJAAEAAAAAJFkFrKqqqlJV"
    "VVUFFMBEAAAAAAAA4oEAMAEAAAAAAIAwBMQNGAAAEITFahwYOYFTGAAmAAQAAAAAEAIBwROw+rMF"
)


@pytest.fixture
def quad(tmp_path):
    """Writes a file with one square and reads it; `change` gets the writer and the primitive."""

    def make(change=lambda glb, primitive: None, **document):
        glb = Glb()
        primitive = {
            "attributes": {"POSITION": glb.accessor(QUAD)},
            "indices": glb.accessor(CORNERS),
        }
        glb.document.update(
            scenes=[{"nodes": [0]}], nodes=[{"mesh": 0}], meshes=[{"primitives": [primitive]}]
        )
        change(glb, primitive)
        glb.document.update(document)
        path = tmp_path / "quad.glb"
        path.write_bytes(glb.bytes())
        return load_soup(path)

    return make


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_random_files_are_read_as_a_plain_slow_reader_reads_them(tmp_path, first):
    for seed in range(first, first + 20):
        data = random_glb(seed)
        expected = SlowReader(data).triangles()
        path = tmp_path / f"{seed}.glb"
        path.write_bytes(data)
        if not expected:
            with pytest.raises(UserError, match="no triangle"):
                load_soup(path)
            continue
        soup = load_soup(path)
        for found, index in ((soup.corners, 0), (soup.colours, 1), (soup.uv, 2)):
            np.testing.assert_allclose(found, [each[index] for each in expected], atol=2e-5)
        textures = [soup.textures[i].tobytes() if i >= 0 else None for i in soup.texture]
        assert textures == [each[3] for each in expected]


def test_required_extensions_that_are_not_understood_are_refused_by_name(quad):
    for name in ("EXT_meshopt_compression", "KHR_texture_ktx", "ACME_walls"):
        with pytest.raises(UserError, match=name):
            quad(extensionsRequired=["KHR_mesh_quantization", name])
    assert len(quad(extensionsUsed=["ACME_walls"])) == 2


def test_meshes_that_are_only_there_compressed_are_refused_by_name(quad):
    def pack(glb, primitive):
        view = glb.view(bytes(40))
        draco = {"bufferView": view, "attributes": {"POSITION": 0}}
        primitive["extensions"] = {"KHR_draco_mesh_compression": draco}
        del glb.document["accessors"][0]["bufferView"]

    with pytest.raises(UserError, match="KHR_draco_mesh_compression"):
        quad(pack)

    def pack_view(glb, primitive):
        glb.document["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {}}
        glb.document["bufferViews"][0]["buffer"] = 1

    with pytest.raises(UserError, match="EXT_meshopt_compression"):
        quad(pack_view, buffers=[{"byteLength": 60}, {"byteLength": 48}])


def test_draco_meshes_are_decoded_where_the_decoder_is_installed(quad):
    draco = pytest.importorskip("DracoPy", reason="DracoPy is not installed")
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    packed = draco.encode(
        QUAD.astype(np.float64), CORNERS.reshape(2, 3).astype(np.uint32), tex_coord=uv
    )
    ids = {
        draco.AttributeType(a["attribute_type"]).name: a["unique_id"]
        for a in draco.decode(packed).attributes
    }

    def pack(glb, primitive):
        view = glb.view(packed)
        primitive["attributes"]["TEXCOORD_0"] = glb.accessor(uv.astype(np.float32))
        material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
        primitive["material"] = glb.add("materials", material)
        glb.texture(np.zeros((2, 2, 3), np.uint8))
        attributes = {"POSITION": ids["POSITION"], "TEXCOORD_0": ids["TEX_COORD"]}
        extension = {"bufferView": view, "attributes": attributes}
        primitive["extensions"] = {"KHR_draco_mesh_compression": extension}
        for accessor in glb.document["accessors"]:
            del accessor["bufferView"]

    soup = quad(pack, extensionsRequired=["KHR_draco_mesh_compression"])
    np.testing.assert_allclose(soup.bounds, [[0, 0, 0], [1, 1, 0]], atol=1e-3)
    np.testing.assert_allclose(soup.uv[..., 0], soup.corners[..., 0], atol=1e-3)
    np.testing.assert_allclose(soup.uv[..., 1], 1 - soup.corners[..., 1], atol=1e-3)


def _textured(image):
    def change(glb, primitive):
        primitive["attributes"]["TEXCOORD_0"] = glb.accessor(QUAD[:, :2].copy())
        texture = {"baseColorTexture": {"index": 0}, "baseColorFactor": [0.5, 1, 1, 1]}
        primitive["material"] = glb.add("materials", {"pbrMetallicRoughness": texture})
        image(glb)

    return change


def test_textures_that_cannot_be_read_are_said_and_the_rest_is_drawn(quad, said):
    def missing(glb):
        glb.add("textures", {"source": glb.add("images", {"uri": "nowhere.png"})})

    def broken(glb):
        glb.add("textures", {"source": glb.add("images", {"bufferView": glb.view(b"no picture")})})

    def compressed(glb):
        image = glb.add("images", {"bufferView": glb.view(b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(80))})
        glb.add("textures", {"extensions": {"KHR_texture_basisu": {"source": image}}})

    for image, words in ((missing, "nowhere.png"), (broken, "decoded"), (compressed, "KTX2")):
        said.clear()
        soup = quad(_textured(image))
        assert (soup.texture == -1).all() and len(soup) == 2
        np.testing.assert_allclose(soup.colours[0, 0], [0.5, 1, 1])
        assert len(said) == 1 and words in said[0] and "quad.glb" in said[0]


def test_basis_textures_are_decoded_where_the_decoder_is_installed(quad, said):
    pytest.importorskip("opengl_basisu", reason="opengl_basisu is not installed")

    def basis(glb):
        image = glb.add("images", {"bufferView": glb.view(KTX2), "mimeType": "image/ktx2"})
        glb.add("textures", {"extensions": {"KHR_texture_basisu": {"source": image}}})

    soup = quad(_textured(basis), extensionsRequired=["KHR_texture_basisu"])
    assert not said and soup.textures[0].shape == (16, 16, 3)
    np.testing.assert_allclose(soup.textures[0][2, 2], [20, 40, 220], atol=8)
    np.testing.assert_allclose(soup.textures[0][12, 12], [200, 30, 30], atol=8)


def test_sixteen_bits_of_grey_are_not_cut_off(quad):
    def grey(glb):
        glb.texture(np.array([[0, 65535], [32768, 257]], np.uint16))

    found = quad(_textured(grey)).textures[0]
    np.testing.assert_array_equal(found[..., 0], [[0, 255], [128, 1]])


def test_skins_and_morph_targets_are_said(quad, said):
    quad(lambda glb, primitive: primitive.update(targets=[{"POSITION": 0}]))
    quad(nodes=[{"mesh": 0, "skin": 0}])
    assert "morph targets" in said[0] and "skins" in said[1]


def test_lines_and_coordinates_that_are_not_there_are_said(quad, said):
    def lines(glb, primitive):
        glb.document["meshes"][0]["primitives"].append({**primitive, "mode": 1})

    assert len(quad(lines)) == 2 and "lines" in said[0]

    def without_uv(glb, primitive):
        _textured(lambda glb: glb.texture(np.zeros((2, 2, 3), np.uint8)))(glb, primitive)
        del primitive["attributes"]["TEXCOORD_0"]

    assert (quad(without_uv).texture == -1).all() and "coordinates" in said[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["accessors"][0].update(count=10**9), "count"),
        (lambda d: d["accessors"][0].update(count=5), "fit"),
        (lambda d: d["accessors"][1].update(componentType=5126, count=3), "whole numbers"),
        (lambda d: d["nodes"][0].update(children=[0]), "two parents"),
        (lambda d: d["nodes"][0].update(mesh=3), r"meshes\[3\]"),
        (lambda d: d["nodes"][0].update(scale=[1, 2]), "scale"),
        (lambda d: d["bufferViews"][0].update(byteOffset=-4), "byteOffset"),
        (lambda d: d["bufferViews"][0].update(byteLength=10**6), "ends after its buffer"),
        (lambda d: d["meshes"][0]["primitives"][0].update(mode=0), "no triangle"),
    ],
)
def test_broken_files_are_refused_in_one_line_that_says_what(quad, change, words):
    with pytest.raises(UserError, match=words) as refused:
        quad(lambda glb, primitive: change(glb.document))
    assert "quad.glb" in str(refused.value) and "\n" not in str(refused.value)


def test_buffers_and_pictures_beside_a_text_file_are_read_and_watched(tmp_path):
    glb = Glb()
    primitive = {"attributes": {"POSITION": glb.accessor(QUAD)}, "indices": glb.accessor(CORNERS)}
    glb.document.update(nodes=[{"mesh": 0}], meshes=[{"primitives": [primitive]}])
    data = glb.bytes()
    binary = data[-60:]
    glb.document["buffers"] = [{"byteLength": 60, "uri": "a%20b.bin"}]
    (tmp_path / "a b.bin").write_bytes(binary)
    (tmp_path / "a.gltf").write_text(json.dumps(glb.document))
    assert load_soup(tmp_path / "a.gltf").bounds[1].tolist() == [1, 1, 0]
    twice = (2 * QUAD).tobytes() + binary[48:]
    (tmp_path / "a b.bin").write_bytes(twice + b"\0")
    assert load_soup(tmp_path / "a.gltf").bounds[1].tolist() == [2, 2, 0]


def _texel(picture, u, v):
    """What a picture [h, w, 3] that repeats shows at u and v, v upwards."""
    rows, columns = picture.shape[:2]
    return picture[int((1.0 - v) % 1.0 * rows), int(u % 1.0 * columns)]


@pytest.mark.parametrize("wrap_v", [10497, 33071, 33648])
@pytest.mark.parametrize("wrap_u", [10497, 33071, 33648])
def test_beside_their_pictures_textures_repeat_mirror_or_keep_their_border(quad, wrap_u, wrap_v):
    # In the middle of texels, none of them one of the picture's own.
    corners = np.array([[-1.75, 1.125], [2.25, -0.625], [3.75, 2.875], [-0.25, -2.125]], np.float32)
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)

    def wrapped(glb, primitive):
        glb.texture(pixels)
        glb.document["textures"][0]["sampler"] = glb.add(
            "samplers", {"wrapS": wrap_u, "wrapT": wrap_v}
        )
        primitive["attributes"]["TEXCOORD_0"] = glb.accessor(corners)
        texture = {"baseColorTexture": {"index": 0}}
        primitive["material"] = glb.add("materials", {"pbrMetallicRoughness": texture})

    def place(value, wrap, size):
        if wrap == 33071:
            return min(max(value, 0.0), 1.0 - 0.5 / size)
        if wrap == 33648:
            return value % 1.0 if math.floor(value) % 2 == 0 else 1.0 - value % 1.0
        return value % 1.0

    soup = quad(wrapped)
    for corner, (u, v) in zip(CORNERS[:, 0], soup.uv.reshape(-1, 2), strict=True):
        x, y = corners[corner].tolist()
        expected = pixels[int(place(y, wrap_v, 4) * 4), int(place(x, wrap_u, 2) * 2)]
        np.testing.assert_array_equal(_texel(soup.textures[0], u, v), expected)


def test_a_texture_that_is_clamped_within_its_picture_stays_as_it_is(quad):
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)

    def clamped(glb):
        glb.texture(pixels)
        glb.document["textures"][0]["sampler"] = glb.add(
            "samplers", {"wrapS": 33071, "wrapT": 33071}
        )

    soup = quad(_textured(clamped))
    np.testing.assert_array_equal(soup.textures[0], pixels)
    # The border itself shows its own texels, not those where the next repetition begins.
    for (u, v), corner in zip(soup.uv.reshape(-1, 2), CORNERS[:, 0], strict=True):
        x, y = QUAD[corner, :2].astype(int)
        np.testing.assert_array_equal(_texel(soup.textures[0], u, v), pixels[-y, -x])
