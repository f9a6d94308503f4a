"""Our own mistakes end the work that rests on them."""

from __future__ import annotations

import pytest

from protocol.invariants import instance_of, present
from protocol.to_agent import Cancel, Pause


@pytest.mark.parametrize("value", [0, "", False, ()])
def test_what_is_empty_is_present(value: object) -> None:
    assert present(value) is value


def test_nothing_is_not_present() -> None:
    with pytest.raises(AssertionError, match="nothing is where"):
        present(None)


def test_a_value_of_its_kind_is_given_back() -> None:
    cancel = Cancel(call=7)
    assert instance_of(cancel, Cancel) is cancel


def test_another_kind_is_named_beside_the_one_that_was_decoded() -> None:
    with pytest.raises(AssertionError, match="Pause is where Cancel was decoded"):
        instance_of(Pause(call=7), Cancel)
