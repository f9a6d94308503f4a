"""How keys look that are made here."""

from __future__ import annotations

import pytest

from balancer.policy.identity.key_text import RANDOM_BYTES, is_mistyped, key_text

KEY = key_text(bytes(range(RANDOM_BYTES)))


def test_a_key_says_what_it_is_and_holds_all_its_random_bits() -> None:
    least, most = key_text(bytes(RANDOM_BYTES)), key_text(b"\xff" * RANDOM_BYTES)
    assert least.startswith("pk_" + "0" * 43)
    assert {len(key) for key in (KEY, least, most)} == {52}
    digits = (KEY[3:46].translate(_VALUES)).encode("latin-1")
    number = 0
    for digit in digits:
        number = number * 62 + digit
    assert number.to_bytes(RANDOM_BYTES) == bytes(range(RANDOM_BYTES))


_VALUES = {
    ord(char): index
    for index, char in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
}


def test_a_slip_of_the_hand_is_told_from_a_key() -> None:
    assert not is_mistyped(KEY)
    for place in range(3, len(KEY)):
        slip = "0" if KEY[place] != "0" else "1"
        assert is_mistyped(KEY[:place] + slip + KEY[place + 1 :]), place


@pytest.mark.parametrize("wrong", [KEY[:-1], KEY + "0", "pk_", KEY[:45], KEY + " ", "pk_\udce4"])
def test_so_is_what_is_cut_off_or_too_long(wrong: str) -> None:
    assert is_mistyped(wrong)


@pytest.mark.parametrize("other", ["", "sk-a-plain-key", "PK_x"])
def test_of_other_keys_nothing_is_said(other: str) -> None:
    assert not is_mistyped(other)
