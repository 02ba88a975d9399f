import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers

from engine.errors import ModelCorrupt
from engine.manifest import Manifest
from engine.prompt import ChatMessage, render_chat
from engine.tokenizer import SEPARATOR, Tokenizer
from tests.engine.tiny_models import SPECIAL_TOKENS

CONTROL = set(SPECIAL_TOKENS)


@pytest.fixture(scope="session")
def byte_level(tiny_model_dir: Path) -> Tokenizer:
    return Tokenizer.read(tiny_model_dir / "tokenizer.json")


@pytest.fixture(scope="session")
def embedder(tiny_embedder_dir: Path) -> Tokenizer:
    return Tokenizer.read(tiny_embedder_dir / "tokenizer.json")


@pytest.fixture(scope="session")
def byte_fallback() -> Tokenizer:
    """As SentencePiece models come: marked spaces, single bytes for what the vocabulary lacks."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdefgh", "▁a", "ab", "▁ab", "é", "東", "�"]
    model = models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[("▁", "a"), ("a", "b"), ("▁a", "b")],
        unk_token="<unk>",
        byte_fallback=True,
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token) for token in ("<unk>", "<s>", "</s>")])
    return Tokenizer(tokenizer)


@pytest.fixture(scope="session", params=["byte_level", "byte_fallback"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found: Tokenizer = request.getfixturevalue(request.param)
    return found


def _streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = tokenizer.stream_decoder()
    return [*(decoder.push(token_id) for token_id in ids), decoder.flush()]


@given(data=st.data())
def test_streamed_pieces_join_to_the_full_decode_of_any_ids(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, 270)))
    assert "".join(_streamed(tokenizer, ids)) == tokenizer.decode(ids)


@given(text=st.text())
def test_streamed_text_never_shows_half_a_character(byte_level: Tokenizer, text: str) -> None:
    ids = byte_level.ids(byte_level.encode(byte_level.as_data(text)))
    pieces = _streamed(byte_level, ids)
    whole = text.replace(SEPARATOR, "")
    assert "".join(pieces) == whole
    assert sum(piece.count("�") for piece in pieces) == whole.count("�")


def test_character_of_four_bytes_appears_with_its_last_token(byte_fallback: Tokenizer) -> None:
    ids = byte_fallback.ids([f"<0x{byte:02X}>" for byte in "🙂".encode()])
    assert _streamed(byte_fallback, [*ids, byte_fallback.ids(["▁a"])[0]]) == [
        *("", "", "", "", "🙂 a"),
        "",
    ]


def test_bytes_around_a_control_token_stay_together(byte_fallback: Tokenizer) -> None:
    ids = byte_fallback.ids(["<0x41>", "</s>", "<0xFF>", "a"])
    assert "".join(_streamed(byte_fallback, ids)) == byte_fallback.decode(ids) == "��a"


def test_leading_space_of_a_later_word_is_kept(byte_fallback: Tokenizer) -> None:
    ids = byte_fallback.ids(byte_fallback.encode("ab ab a"))
    assert _streamed(byte_fallback, ids) == ["ab", " ab", " a", ""]


def test_control_tokens_have_no_text_and_change_none(byte_level: Tokenizer) -> None:
    ids = byte_level.ids(byte_level.encode("<|im_start|>The<|im_end|> team"))
    assert "".join(_streamed(byte_level, ids)) == "The team"


def test_control_strings_of_a_template_are_single_tokens(byte_level: Tokenizer) -> None:
    tokens = byte_level.encode("<|im_start|>user\nHello<|im_end|>\n")
    assert [token for token in tokens if token in CONTROL] == ["<|im_start|>", "<|im_end|>"]
    assert tokens[0] == "<|im_start|>"


# Contents that hold control strings, whole, in pieces, overlapping, and the separator itself.
hostile = st.lists(
    st.one_of(
        st.sampled_from([*SPECIAL_TOKENS, "<|im_", "start|>", "<", "|im_end|>", SEPARATOR, "\n"]),
        st.text(max_size=4),
    )
).map("".join)


@given(contents=st.lists(hostile, min_size=1, max_size=3))
def test_no_message_can_add_a_control_token_to_its_prompt(
    byte_level: Tokenizer, tiny_model_dir: Path, contents: list[str]
) -> None:
    template = Manifest.read(tiny_model_dir, verify=False).chat_template
    assert template is not None

    def control_tokens(texts: list[str], as_data: Callable[[str], str]) -> list[str]:
        messages = [ChatMessage(role="user", content=text) for text in texts]
        tokens = byte_level.encode(render_chat(template, messages, as_data=as_data))
        return [token for token in tokens if token in CONTROL]

    harmless = control_tokens(["x"] * len(contents), str)
    assert control_tokens(contents, byte_level.as_data) == harmless


@given(text=hostile)
def test_data_keeps_every_character_of_a_control_string(byte_level: Tokenizer, text: str) -> None:
    tokens = byte_level.encode(byte_level.as_data(text))
    assert not CONTROL.intersection(tokens)
    assert byte_level.decode(byte_level.ids(tokens)) == text.replace(SEPARATOR, "")


@given(texts=st.lists(hostile))
def test_count_is_the_length_of_each_text_as_data(byte_level: Tokenizer, texts: list[str]) -> None:
    expected = [len(byte_level.encode(byte_level.as_data(text))) for text in texts]
    assert byte_level.count(texts) == expected


def test_count_is_not_capped_by_limits_in_the_tokenizer_file(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    data = json.loads((tiny_model_dir / "tokenizer.json").read_text())
    data["truncation"] = {
        "max_length": 5,
        "stride": 0,
        "strategy": "LongestFirst",
        "direction": "Right",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert Tokenizer.read(tmp_path / "tokenizer.json").count(["1 " * 50]) == [100]


def test_passages_are_framed_and_cut_inside_the_frame(embedder: Tokenizer) -> None:
    short, long = embedder.encode_passages(["The team", "The team " * 50], max_tokens=10)
    assert (short[0], short[-1]) == (long[0], long[-1]) == (2, 3)
    assert len(short) < len(long) == 10


def test_frame_tokens_inside_a_passage_are_data(embedder: Tokenizer) -> None:
    (ids,) = embedder.encode_passages(["The [SEP] team [CLS]"], max_tokens=100)
    assert (ids.count(2), ids.count(3)) == (1, 1)


def test_empty_texts_are_no_error(byte_level: Tokenizer, embedder: Tokenizer) -> None:
    assert byte_level.count([]) == []
    assert byte_level.count([""]) == [0]
    assert embedder.encode_passages([], max_tokens=10) == []
    assert embedder.encode_passages([""], max_tokens=10) == [[2, 3]]


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_unreadable_tokenizer_is_a_corrupt_model(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ModelCorrupt, match=r"tokenizer\.json cannot be read"):
        Tokenizer.read(file)
