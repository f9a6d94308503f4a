"""The one table of refusals: every code has its consequence."""

from __future__ import annotations

import pytest

from protocol.refusals import CONSEQUENCES, RefusalCode, consequence_of, is_known


@pytest.mark.parametrize("code", list(RefusalCode))
def test_every_refusal_has_a_row_named_after_it(code: RefusalCode) -> None:
    assert CONSEQUENCES[code].name == code.name.lower()
    assert is_known(code)


def test_what_the_client_caused_has_a_status_of_its_own_and_is_tried_nowhere_else() -> None:
    blamed = [row for row in CONSEQUENCES.values() if row.blame == "client" and row.status]
    assert all(row.status in {400, 429} and not row.elsewhere for row in blamed)


@pytest.mark.parametrize("code", [-32700, -32603, 12345])
def test_json_rpc_s_own_and_unknown_codes_are_the_agent_s_fault(code: int) -> None:
    row = consequence_of(code)
    assert (row.blame, row.status, row.elsewhere) == ("agent", 502, True)


def test_a_made_up_code_is_not_known() -> None:
    assert is_known(-32700)
    assert not is_known(7)
