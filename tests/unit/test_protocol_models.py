"""The names that a served model goes by."""

from __future__ import annotations

from protocol.models import MAX_NAME_CHARS, ServedModel, names_of


def model(*aliases: str, adapters: tuple[str, ...] = ()) -> ServedModel:
    return ServedModel(name="base", aliases=aliases, context_tokens=1, adapters=adapters)


def test_a_model_goes_by_its_name_and_its_aliases() -> None:
    assert model("small", "gpt-x").names == ("base", "small", "gpt-x")
    assert names_of(model("small")) == {"base", "small", "base@1", "small@1"}
    assert model("small").adapter_names() == {}


def test_under_an_adapter_it_goes_by_each_of_them_with_the_adapter_behind() -> None:
    assert model("small", adapters=("poet",)).adapter_names() == {
        "base:poet": "poet",
        "small:poet": "poet",
        "base:poet@1": "poet",
        "small:poet@1": "poet",
    }
    assert set(model(adapters=("poet", "clerk")).adapter_names().values()) == {"poet", "clerk"}


def test_a_name_of_its_own_is_no_adapter_s() -> None:
    names = model("base:poet", adapters=("poet",)).adapter_names()
    assert set(names) == {"base:poet:poet", "base:poet:poet@1"}


def test_a_name_that_nobody_may_ask_for_is_none() -> None:
    longest = "a" * (MAX_NAME_CHARS - len("base:"))
    assert set(model(adapters=(longest,)).adapter_names()) == {f"base:{longest}"}
    assert model(adapters=(longest + "a",)).adapter_names() == {}
