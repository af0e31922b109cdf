import random

import pytest

from waypost.contracts.duplicates import duplicate_groups, same_text_key

WORDS = list("abcdefghijklmnopqrst")


def sentence(*changed: int) -> str:
    """Twenty words; the named ones are others."""
    return " ".join(f"other{i}" if i in changed else word for i, word in enumerate(WORDS))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("What is 2 + 2?", "whatis22"),
        ("  what IS\n2+2 ", "whatis22"),
        ("Straße", "strasse"),
        ("Cafe\u0301", "café"),
        ("कि", "कि"),  # the vowel is a mark, and not that of the next
        ("का", "का"),
        (" +-? ", "+-?"),
        ("", ""),
    ],
)
def test_the_key_of_a_text(text, key):
    assert same_text_key(text) == key


def test_equal_but_for_punctuation_case_and_blanks():
    groups = duplicate_groups(["Who wrote it?", "when", "who  wrote it", "WHO WROTE IT!"])
    assert groups.tolist() == [0, 1, 0, 0]


def test_jaccard_by_hand():
    # 18 shingles. The last word is in one of them: 17 shared of 19. Both ends: 16 of 20 = 0.8.
    # One word two places from an end is in two: 16 of 20; two such words: 14 of 22.
    texts = [sentence(), sentence(19), sentence(0, 19), sentence(1, 18)]
    assert duplicate_groups([texts[0], texts[1]]).tolist() == [0, 0]
    assert duplicate_groups([texts[0], texts[2]]).tolist() == [0, 0]
    assert duplicate_groups([texts[0], texts[3]]).tolist() == [0, 1]
    assert duplicate_groups([texts[0], sentence(1)]).tolist() == [0, 0]
    assert duplicate_groups([texts[0], sentence(10)]).tolist() == [0, 1]  # 15 of 21


def test_shuffled_options_are_the_same_question():
    question = "How many?\nA. ten\nB. two\nC. six"
    assert same_text_key(question) == same_text_key("How many?\n(A) six\n\n(B) ten \n(C) two\n")
    assert same_text_key(question) != same_text_key("How many?\nA. ten\nB. two\nC. five")
    assert same_text_key("A. B. Yehoshua wrote\nB. nothing?") == "byehoshuawrotenothing"
    assert same_text_key("Name it.\nA. Plan") == "nameitaplan"  # one line is no list


def test_a_chain_is_one_group():
    texts = [sentence(0, 19), sentence(), sentence(1)]
    assert duplicate_groups([texts[0], texts[2]]).tolist() == [0, 1]
    assert duplicate_groups(texts).tolist() == [0, 0, 0]


def test_short_questions_with_another_number_are_apart():
    texts = ["What is 2 plus 2?", "What is 2 plus 3?", "Yes", "No", "+", "-", ""]
    assert duplicate_groups(texts).tolist() == list(range(7))


def test_scripts_without_blanks_are_compared_by_character():
    text = "日本の首都はどこにありますか教えてくださいお願いします"
    other = "富士山の高さは何メートルですか"
    assert duplicate_groups([text, text + "よ", other]).tolist() == [
        0,
        0,
        1,
    ]


def test_one_long_instruction_does_not_make_one_group():
    instruction = " ".join(f"rule{i}" for i in range(60))
    texts = [f"{instruction} question {i} about item{i}" for i in range(40)]
    assert len(set(duplicate_groups(texts).tolist())) == 40
    # Asked a few times only, it is the text itself.
    assert len(set(duplicate_groups(texts[:5]).tolist())) == 1


def test_what_is_grouped_does_not_depend_on_the_order():
    texts = [sentence(i, j) for i in range(20) for j in range(i, 20)] + ["alone", "apart"]
    first = duplicate_groups(texts)
    order = random.Random(5).sample(range(len(texts)), len(texts))
    second = duplicate_groups([texts[i] for i in order])
    pairs = {(first[i], group) for i, group in zip(order, second, strict=True)}
    assert len(pairs) == len(set(first.tolist())) == len(set(second.tolist()))
    assert second[0] == 0  # numbered by first appearance


def test_prefixes_miss_no_pair():
    """Every pair that a plain comparison of all finds, on texts around the threshold."""
    rng = random.Random(1)
    texts = []
    for _ in range(8):
        base = [f"w{rng.randrange(400)}" for _ in range(rng.randrange(5, 40))]
        texts += [" ".join(base), " ".join(base[: max(3, len(base) - rng.randrange(8))])]
    sets = [{tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in map(str.split, texts)]
    groups = duplicate_groups(texts)
    for i, a in enumerate(sets):
        for j, b in enumerate(sets[:i]):
            alike = 5 * len(a & b) >= 4 * len(a | b)
            assert not alike or groups[i] == groups[j]
    assert 8 <= len(set(groups.tolist())) < 16
