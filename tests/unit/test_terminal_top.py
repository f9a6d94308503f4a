"""What `paddler-py top` shows, and what its keys do: no terminal, no balancer."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from balancer.terminal.top.actions import Action
from balancer.terminal.top.command import base_url
from balancer.terminal.top.frame import Canvas, draw
from balancer.terminal.top.keys import keys
from balancer.terminal.top.picture import HISTORY, LinkState, NoSuchProtocol, Picture
from balancer.terminal.top.tables import count, duration
from balancer.terminal.top.view import View
from tests.support.fake_live_balancer import AGENT, CONTROL, METRICS

NOW_S = 1005.0


def shown(picture: Picture, view: View, *, width: int = 80, height: int | None = 24) -> list[str]:
    canvas = Canvas(width, height, is_ascii=False)
    lines = draw(picture, view, canvas, url="http://127.0.0.1:8081", now_s=NOW_S)
    assert max(line.cell_len for line in lines) <= width
    return [line.plain for line in lines]


def known(**agents: dict[str, Any]) -> Picture:
    """A picture of a live balancer, with agents beside the first."""
    picture = Picture()
    control: dict[str, Any] = copy.deepcopy(CONTROL)
    control["agents"].update({name: {**AGENT, "id": name, **row} for name, row in agents.items()})
    hear(picture, {"type": "snapshot", "seq": 1, "data": control})
    figures = {"type": "snapshot", "seq": 1, "data": copy.deepcopy(METRICS)}
    picture.hear("metrics", figures, now_s=NOW_S)
    picture.state = LinkState(link="live")
    return picture


def hear(picture: Picture, message: Any) -> bool:
    return picture.hear("control", copy.deepcopy(message), now_s=NOW_S)


def press(view: View, picture: Picture, *pressed: str) -> Action | None:
    actions = [view.press(key, picture) for key in pressed]
    return actions[-1]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (40, 10), (20, 5), (80, 1)])
@pytest.mark.parametrize("table", ["1", "2", "3", "?"])
def test_a_frame_fills_its_terminal_and_no_more(width: int, height: int, table: str) -> None:
    view, picture = View(), known()
    press(view, picture, table)
    assert len(shown(picture, view, width=width, height=height)) == height


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_still_tells_of_help_and_the_way_out(width: int) -> None:
    last = shown(known(), View(), width=width)[-1]
    assert last.endswith("? help  q quit")
    assert "d drain" in last


def test_a_low_terminal_shows_rows_rather_than_figures() -> None:
    lines = shown(known(), View(), height=10)
    assert any(line.startswith("> ") for line in lines)


def test_the_overview_names_the_connection_the_figures_and_each_agent() -> None:
    lines = shown(known(), View())
    assert "live" in lines[0]
    assert "healthy" in lines[0]
    assert "requests/s 2.5" in lines[1]
    row = next(line for line in lines if line.startswith("> gpu-1"))
    assert all(text in row for text in ("ready", "demo", "1/4 #...", "10%", "81", "5.0s"))


def test_what_is_not_known_is_a_dash_and_no_zero() -> None:
    assert "ttft p50 - " in shown(known(), View())[3]


def test_a_lost_connection_says_why_and_when_it_is_tried_again() -> None:
    picture = known()
    picture.state = LinkState(link="lost", why="does not answer in time", retry_in_s=4.0)
    line = shown(picture, View(), width=120)[0]
    assert "lost: does not answer in time; again in 4 s" in line


def test_a_name_cannot_move_the_cursor() -> None:
    lines = shown(known(**{"evil\x1b[2J\r\n": {}}), View())
    assert not any(sign in line for line in lines for sign in "\x1b\r\n")


def test_wide_names_are_cut_at_cells_and_marked() -> None:
    lines = shown(known(**{"\u6a21" * 40: {}}), View())
    assert any("\u6a21 \u2026" in line for line in lines)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    canvas = Canvas(80, 24, is_ascii=True)
    lines = draw(known(**{"caf\u00e9" * 20: {}}), View(), canvas, url="u", now_s=NOW_S)
    assert all(line.plain.isascii() for line in lines)


def test_an_agent_that_loads_shows_how_far_it_is() -> None:
    lines = shown(known(two={"load_progress": 0.42, "state": "not_ready"}), View())
    assert any("loading 42%" in line for line in lines)


def test_the_chosen_agent_s_issue_stands_at_the_bottom() -> None:
    issue = {"code": "engine_died", "message": "it is started again"}
    view, picture = View(), known(two={"issues": [issue, issue]})
    press(view, picture, "end")
    assert shown(picture, view)[-2] == "engine_died (+1): it is started again"


def test_the_chosen_row_is_always_in_view() -> None:
    view, picture = View(), known(**{f"agent-{number:03}": {} for number in range(100)})
    shown(picture, view)
    for key in ("end", "page up", "up", "home", "page down", "down"):
        press(view, picture, key)
        assert any(line.startswith(f"> {view.chosen}") for line in shown(picture, view))


def test_rows_are_sorted_by_a_column_and_from_either_end() -> None:
    view, picture = View(), known(two={"slots_used": 4}, zero={"slots_used": 0})
    press(view, picture, "s", "s", "s")
    assert [row["key"] for row in view.rows(picture)] == ["zero", "gpu-1", "two"]
    press(view, picture, "r")
    assert [row["key"] for row in view.rows(picture)] == ["two", "gpu-1", "zero"]
    press(view, picture, "S", "S", "S")
    assert [row["key"] for row in view.rows(picture)] == ["gpu-1", "two", "zero"]


def test_a_filter_keeps_rows_that_hold_every_word() -> None:
    view, picture = View(), known(two={"state": "draining"}, three={"state": "busy"})
    press(view, picture, "/", *"Demo drainx", "backspace", "enter")
    assert [row["key"] for row in view.rows(picture)] == ["two"]
    assert any("filter: Demo drain" in line for line in shown(picture, view))
    press(view, picture, "escape")
    assert len(view.rows(picture)) == 3


def test_an_action_is_done_only_when_it_is_confirmed() -> None:
    view, picture = View(), known()
    assert press(view, picture, "d", "n") is None
    assert press(view, picture, "d", "enter") is None
    assert press(view, picture, "d") is None
    assert shown(picture, view)[-1].startswith("drain gpu-1?")
    assert press(view, picture, "y") == Action("drain", "gpu-1")
    assert press(view, picture, "u", "y") == Action("undrain", "gpu-1")
    assert press(view, picture, "x", "y") == Action("remove", "gpu-1")
    assert press(view, picture, "3", "c", "y") == Action("cancel", "req_1")


def test_an_action_goes_to_the_row_that_was_asked_about_though_rows_come_and_go() -> None:
    view, picture = View(), known(two={})
    press(view, picture, "down", "d")
    hear(picture, {"type": "delta", "seq": 2, "gone": ["agents.gpu-1"]})
    hear(picture, {"type": "delta", "seq": 3, "set": {"agents.a": AGENT}})
    assert press(view, picture, "y") == Action("drain", "two")


def test_requests_cannot_be_cancelled_from_the_table_of_agents() -> None:
    view, picture = View(), known()
    assert press(view, picture, "c", "y") is None
    assert view.said == "cancel: choose one of the requests first (3)"


def test_q_leaves_but_not_while_a_filter_is_typed() -> None:
    view, picture = View(), known()
    press(view, picture, "/", "q")
    assert not view.is_over
    press(view, picture, "enter", "q")
    assert view.is_over


def test_tables_go_round() -> None:
    view, picture = View(), known()
    press(view, picture, "left")
    tables = [view.table]
    for _ in range(3):
        press(view, picture, "tab")
        tables.append(view.table)
    assert tables == ["requests", "agents", "models", "requests"]


def test_bytes_of_a_terminal_become_keys() -> None:
    sent = b"j\x1b[A\x1bOB\x1b[5~\x1b[200~\x1b\t\r\x7f\xc3\xa9\x00\xff"
    expected = ["j", "up", "down", "page up", "escape", "tab", "enter", "backspace", "\u00e9"]
    assert list(keys(sent)) == expected


def test_a_change_sets_what_is_new_and_forgets_what_is_gone() -> None:
    picture = known()
    change = {"type": "delta", "seq": 2, "set": {"agents.a~1b~0c.state": "busy"}, "gone": []}
    assert hear(picture, change)
    assert picture.control["agents"]["a.b~c"] == {"state": "busy"}
    gone = ["agents.gpu-1", "nothing.there", "balancer.status.deeper"]
    assert hear(picture, {"type": "delta", "seq": 3, "gone": gone})
    assert list(picture.control["agents"]) == ["a.b~c"]


def test_a_change_out_of_turn_asks_for_a_snapshot_until_it_comes() -> None:
    picture = known()
    assert not hear(picture, {"type": "delta", "seq": 3, "set": {"agents": {}}})
    assert not hear(picture, {"type": "delta", "seq": 4, "set": {"agents": {}}})
    assert picture.rows("agents")
    assert hear(picture, {"type": "snapshot", "seq": 9, "data": CONTROL})
    assert hear(picture, {"type": "delta", "seq": 10, "set": {"agents": {}}})
    assert not picture.rows("agents")


@pytest.mark.parametrize(
    "message",
    [
        [],
        {"type": "snapshot", "seq": 1, "data": 3},
        {"type": "delta", "seq": 2, "set": []},
        {"type": "delta", "seq": 2, "gone": 7},
        {"type": "delta", "seq": 2, "gone": [7]},
        {"type": "delta", "seq": 2, "gone": ["a" * 60_000] * 60_000},
        {"type": "delta", "seq": 2, "set": {"." * 50: 1}},
        {"type": "delta", "seq": 2, "set": {f"agents.{n}": {} for n in range(20_001)}},
    ],
)
def test_what_no_balancer_says_ends_the_connection(message: Any) -> None:
    with pytest.raises(NoSuchProtocol):
        hear(known(), message)


def test_odd_rows_are_left_out_and_odd_values_are_dashes() -> None:
    picture = known(two={"slots_used": "many", "issues": 3, "model": [], "last_heard": "then"})
    picture.control["agents"]["three"] = 3
    (row,) = [line for line in shown(picture, View()) if line.startswith("  two")]
    assert row.split() == ["two", "ready", "-", "0/4", "....", "10%", "-", "-", "0"]
    picture.control["agents"] = 3
    assert any("no agents" in line for line in shown(picture, View()))


def test_the_past_is_bounded() -> None:
    picture = known()
    for second in range(3 * HISTORY):
        message = {
            "type": "delta",
            "seq": second + 2,
            "point": {"at": NOW_S + second, "values": {"tokens.per_second": second}},
        }
        picture.hear("metrics", message, now_s=NOW_S)
    assert len(picture.history["tokens.per_second"]) == HISTORY
    assert picture.ahead_s == 3 * HISTORY - 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (9.94, "9.9s"), (599, "599s"), (600, "10m"), (36_000, "10h"), (864_000, "10d")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (2.5, "2.5"), (9_999, "9999"), (10_000, "10.0k"), (123_456, "123k"), (3e9, "3.0G")],
)
def test_counts_are_short(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize("url", ["h:8081", "http://h:8081", "http://h:8081/"])
def test_a_balancer_may_be_given_in_several_ways(url: str) -> None:
    assert base_url(url) == "http://h:8081"
