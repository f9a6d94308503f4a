"""Rules that rewrite texts: the same wherever a text is cut, and what patterns may look like."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer import text_rules
from balancer.config_file.pattern_length import MOST_NESTED, UnreadableLength, lengths
from balancer.config_file.sanitise_section import text_rules as rules_of_section
from balancer.config_file.sections import SectionFault
from balancer.text_rules import PatternFault, RewrittenText, TextRule, compiled


def rule(pattern: str, replace: str = "[x]", **more: Any) -> dict[str, Any]:
    return {"name": "one", "pattern": pattern, "replace": replace, **more}


def rules(*given: tuple[str, str]) -> tuple[TextRule, ...]:
    return rules_of_section([rule(*one, name=f"rule-{number}") for number, one in enumerate(given)])


def whole(of: tuple[TextRule, ...], text: str) -> str:
    """What Python's own engine makes of all of it."""
    for one in of:
        text = re.sub(one.pattern, one.replace.replace("\\", r"\\"), text, flags=re.ASCII)
    return text


def in_pieces(of: tuple[TextRule, ...], pieces: list[str]) -> str:
    text = RewrittenText(of)
    return "".join([*map(text.feed, pieces), text.flush()])


CASES: list[tuple[tuple[tuple[str, str], ...], str]] = [
    (((r"\b\d{4}-\d{4}\b", "[card]"),), "my card 1234-5678, not 12345-67890 nor 1-2; 1234-5678"),
    (((r"[a-z]{1,8}@[a-z]{1,8}\.com", "[mail]"),), "ann@host.com bob@b.com éva@x.com a@b.comx"),
    (((r"ab|abcd", "!"),), "abcd ab abc"),
    (((r"abcd|ab", "!"),), "abcd ab abc abcab"),
    (((r"a{2,3}", "A"),), "aaaaaaa a aa aaaa"),
    (((r"^secret", "[s]"), (r"end$", "[e]")), "secret secret at the end end"),
    (((r"(?i)pass(?:word)?", "***"),), "Password PASS passWORD pas s"),
    (((r"one", "two"), (r"two", "three")), "one two onetwo twone"),
    (((r"b", "aa"), (r"aa", "c")), "abab aab b"),
    (((r"🙂é", "smile"),), "a🙂é🙂🙂é"),
    (((r"x\by?", "-"),), "x xy x"),
    (((r"a", ""),), "banana"),
]


@pytest.mark.parametrize(("given_rules", "text"), CASES)
def test_a_text_is_rewritten_alike_wherever_it_is_cut(
    given_rules: tuple[tuple[str, str], ...], text: str
) -> None:
    of = rules(*given_rules)
    expected = whole(of, text)
    assert in_pieces(of, [text]) == expected
    assert in_pieces(of, list(text)) == expected
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            pieces = [text[:first], text[first:second], text[second:]]
            assert in_pieces(of, pieces) == expected, pieces


@settings(max_examples=150)
@given(
    text=st.text(alphabet="ab1 -é", max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=8),
    given_rules=st.lists(
        st.tuples(
            st.sampled_from(
                [r"a{1,3}", r"ab|b", r"\bb\b", r"[ab1]{2}-", r"(?:a|ab)1?", r"1-?1", r"^a", r"b$"]
            ),
            st.sampled_from(["", "a", "b1", "-"]),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_any_text_is_rewritten_alike_wherever_it_is_cut(
    text: str, cuts: list[int], given_rules: list[tuple[str, str]]
) -> None:
    of = rules(*given_rules)
    ends = sorted(min(cut, len(text)) for cut in cuts)
    pieces = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    assert in_pieces(of, pieces) == whole(of, text)


def test_no_more_is_held_back_than_the_longest_matches_have() -> None:
    of = rules((r"\d{4}", "[four]"), (r"x{1,6}", "[xs]"))
    text, sent = RewrittenText(of), 0
    for fed in range(1, 200):
        sent += len(text.feed("a"))
        assert fed - sent <= 4 + 6
    assert len(text.flush()) + sent == 199


def test_what_comes_after_a_flush_is_another_text() -> None:
    text = RewrittenText(rules((r"^ab", "!")))
    assert text.feed("a") + text.flush() == "a"
    assert text.feed("b") + text.flush() == "b"
    assert text.feed("ab") + text.flush() == "!"


SIMPLE = ("a", "b", ".", "[ab]", "[^a]", "é", "^", "$", "[[:alpha:]]", "[]a]")
ESCAPES = (r"\d", r"\w", r"\.", r"\x41", r"\x{1F642}", r"\pL", r"[\]a]", r"\b")
PIECES = st.recursive(
    st.sampled_from((*SIMPLE, *ESCAPES)),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map(lambda one: f"(?:{one})"),
        inner.map(lambda one: f"({one})"),
        inner.map(lambda one: f"(?:{one})?"),
        st.tuples(inner, st.integers(0, 3), st.integers(0, 2)).map(
            lambda found: f"(?:{found[0]}){{{found[1]},{found[1] + found[2]}}}"
        ),
        inner.map(lambda one: f"(?P<n>{one}){{2}}?"),
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(pattern=PIECES, text=st.text(alphabet="abA.1é🙂]\n ", max_size=12))
def test_no_match_is_longer_or_shorter_than_was_read_off_its_pattern(
    pattern: str, text: str
) -> None:
    least, most = lengths(pattern)
    try:
        matcher = compiled(pattern)
    except PatternFault:  # repetitions of repetitions become too large for it
        return
    for match in matcher.finditer(text):
        assert least <= len(match.group()) <= most


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("a*", "has no end"),
        ("a+", "has no end"),
        ("a{2,}", "has no end"),
        ("a{1,1000}b{1,1000}", "can have 2000 characters"),
        ("", "matches where there is nothing"),
        ("a?", "matches where there is nothing"),
        (r"\b", "matches where there is nothing"),
        ("a)", "too many"),
        ("(a", "not closed"),
        ("[a", "not closed"),
        ("a\\", "behind the last"),
        (r"(a)\1", "not known here"),
        (r"\Qa\E", "not known here"),
        ("(?=a)b", "not known here"),
        ("(?<n>a)", "not known here"),
        ("a(?i)b", "not known here"),
        ("?a", "nothing before"),
        ("a{x", "for the character {"),
        ("(" * (MOST_NESTED + 1) + "a" + ")" * (MOST_NESTED + 1), "nested more than"),
        ("a" * 1001, "more than 1000 characters"),
        (r"\p{Nothing}", "invalid character class"),
        ("a{2}{3}", "bad repetition"),
        ("(x{500}){500}", "invalid repetition size"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_the_reason(
    pattern: str, problem: str
) -> None:
    with pytest.raises(SectionFault, match=re.escape(problem)) as caught:
        rules_of_section([rule(pattern)])
    assert caught.value.field("sanitise") == "sanitise[0].pattern"


@pytest.mark.parametrize(
    ("raw", "field", "problem"),
    [
        ("text", "sanitise", "no list"),
        ([rule("a")] * 33, "sanitise", "no list"),
        ([rule("a"), rule("b")], "sanitise[1].name", "there twice"),
        ([rule("a", name="two words")], "sanitise[0].name", "cannot be used"),
        ([rule("a", replace="\n")], "sanitise[0].replace", "cannot be used"),
        ([rule("a", replace="x" * 201)], "sanitise[0].replace", "cannot be used"),
        ([rule("a", where="nowhere")], "sanitise[0].where", "nowhere"),
        ([{"name": "one"}], "sanitise[0]", "pattern"),
        ([rule("a", more=1)], "sanitise[0]", "unknown field"),
    ],
)
def test_a_rule_that_is_wrong_is_named(raw: Any, field: str, problem: str) -> None:
    with pytest.raises(SectionFault, match=problem) as caught:
        rules_of_section(raw)
    assert caught.value.field("sanitise") == field


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_rules, "re2", None)
    with pytest.raises(SectionFault, match="pip install"):
        rules_of_section([rule("never compiled before")])


def test_no_pattern_takes_more_time_than_the_text_is_long() -> None:
    of = rules((r"(?:a?){30}a{30}", "!"), (r"(?:a|aa){1,40}b", "!"))
    assert in_pieces(of, ["a" * 40] * 500)
    assert lengths("(?:(?:a{1,9}){1,9}){1,9}") == (1, 729)


def test_lengths_that_cannot_be_read_are_said_so() -> None:
    with pytest.raises(UnreadableLength):
        lengths("(?#comment)")
