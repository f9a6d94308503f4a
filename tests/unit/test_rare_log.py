"""Lines that strangers cause are written now and then, and say how many were left out."""

from __future__ import annotations

from structlog.testing import capture_logs

from balancer.observability.rare_log import GAP_S, RareLog


def test_one_line_in_a_while_tells_of_those_that_were_left_out() -> None:
    now_s = 0.0
    rare = RareLog(lambda: now_s)
    with capture_logs() as lines:
        for number in range(5):
            rare.warning("refused", reason="slow", number=number)
        rare.warning("refused", reason="large", number=7)
        now_s = GAP_S
        rare.warning("refused", reason="slow", number=8)
    told = [(line["reason"], line["number"], line["left_out"]) for line in lines]
    assert told == [("slow", 0, 0), ("large", 7, 0), ("slow", 8, 4)]
