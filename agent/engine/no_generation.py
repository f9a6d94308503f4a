"""In the place of `Serving` for a model that makes embeddings only: it has no slot."""

from __future__ import annotations

from agent.engine.frames import CancelCall, ContinueCall, PauseCall, Refused, Step, Submit
from agent.engine.query_frames import MoveCall, QueryAnswer, QueryRefused
from protocol.refusals import RefusalCode


class NoGeneration:
    """Refuses every call."""

    has_work = False
    prompt_budget = 0

    def __init__(self) -> None:
        self._refused: list[Refused] = []
        self._is_asked = False

    def submit(self, submit: Submit) -> None:
        """Refuse a call; the next Step says so."""
        message = "this model makes embeddings only, it cannot generate text"
        self._refused.append(Refused(submit.call, int(RefusalCode.UNSUPPORTED), message))

    def cancel(self, command: CancelCall) -> None:
        """No call is ever held."""

    def pause(self, command: PauseCall) -> None:
        """No call is ever held."""

    def go_on(self, command: ContinueCall) -> None:  # noqa: ARG002 (the interface of Serving)
        """No call is ever held; the next Step shows that the engine does not hang."""
        self._is_asked = True

    def moved(self, command: MoveCall) -> QueryAnswer:
        """There is nothing to move."""
        message = "this model makes embeddings only, it has no sequences"
        facts: dict[str, int | str] = {"reason": "no_cache"}
        code = int(RefusalCode.CANNOT_MOVE)
        return QueryRefused(call=command.call, code=code, message=message, facts=facts)

    def turn(self) -> Step | None:
        """The refusals since the last turn; None: there is nothing to say."""
        refused, self._refused = tuple(self._refused), []
        is_asked, self._is_asked = self._is_asked, False
        return Step(number=0, refused=refused) if refused or is_asked else None
