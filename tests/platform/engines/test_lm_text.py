from __future__ import annotations

from waypost.engines._lm_batch import Detokenizer


def decode_bytes(ids) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def test_half_a_character_waits_for_its_other_half():
    detokenizer = Detokenizer(decode_bytes)
    shown = [detokenizer.push(byte) for byte in "aé🦊b".encode()]
    assert shown == ["a", "", "é", "", "", "", "🦊", "b"]


def test_what_never_becomes_a_character_comes_at_the_end():
    detokenizer = Detokenizer(decode_bytes)
    assert [detokenizer.push(byte) for byte in b"a\xf0\x9f"] == ["a", "", ""]
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


def test_bytes_that_are_no_text_are_not_held_for_ever():
    detokenizer = Detokenizer(decode_bytes)
    shown = [detokenizer.push(0xFF) for _ in range(40)]
    assert "".join(shown) + detokenizer.flush() == "\ufffd" * 40
    assert any(shown)


def test_a_space_that_the_decoder_drops_in_front_is_kept_between():
    words = {1: "▁one", 2: "▁two"}

    def decode(ids) -> str:
        return "".join(words[token] for token in ids).replace("▁", " ").removeprefix(" ")

    detokenizer = Detokenizer(decode)
    assert [detokenizer.push(token) for token in (1, 2, 1)] == ["one", " two", " one"]
