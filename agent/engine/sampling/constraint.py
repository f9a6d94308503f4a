"""What keeps a call's tokens inside a grammar, as the sampler sees it. No grammar library here."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Constraint(Protocol):
    """One call's grammar. Its state is a function of the accepted tokens alone, so that it can be
    rebuilt by replaying them. End tokens are tokens like others: allowed where the text may end.
    """

    def allows(self, token: int) -> bool:
        """Whether the token may come next. Cheap: asked for every token drawn."""

    def mask(self) -> NDArray[np.bool_] | None:
        """Which tokens may come next, [vocabulary]; None: all (a trigger has not come yet).

        Costs a pass over the vocabulary: asked for only when a drawn token was refused.
        """

    def accept(self, token: int) -> None:
        """The token was chosen, here or elsewhere."""

    def rollback(self, count: int) -> None:
        """Undo the last `count` accepts."""

    @property
    def is_asleep(self) -> bool:
        """Whether it binds nothing yet, but for a token here and there; it may wake up when one is
        accepted, and does not fall asleep again."""

    def passes(self, token: int) -> bool:
        """Accept a token, if it is allowed and that can be told at next to no cost; False: nothing
        was done. Raises nothing."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing but an end token may follow."""

    def close(self) -> None:
        """Free what the constraint holds."""
