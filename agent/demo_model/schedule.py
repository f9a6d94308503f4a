"""How lengths and the learning rate go with progress (0 at the start, 1 at the end). Pure."""

from random import Random

_WARM_UP = 0.015
_DECAY_FROM = 0.25
_MAIN = 0.825  # share of the run after which the rate has fallen to zero
_FINISH_RATE = 0.12  # then it starts again from here: a short second decay
_PHASES: tuple[tuple[float, tuple[tuple[int, float], ...]], ...] = (
    (0.15, ((256, 1.0),)),
    (0.30, ((256, 0.5), (1024, 0.5))),
    (1.01, ((256, 0.42), (1024, 0.33), (2048, 0.25))),
)


def rate(progress: float) -> float:
    """The learning rate as a share of the highest: warm-up, constant, two falls to zero."""
    if progress >= _MAIN:
        return _FINISH_RATE * max(0.0, (1.0 - progress) / (1.0 - _MAIN))
    main = progress / _MAIN
    if main < _WARM_UP:
        return max(0.05, main / _WARM_UP)
    if main < _DECAY_FROM:
        return 1.0
    return (1.0 - main) / (1.0 - _DECAY_FROM)


def length(rng: Random, progress: float) -> int:
    """The conversation length of the next step: short first, long ones mixed in later."""
    for end, mix in _PHASES:
        if progress < end:
            return rng.choices([size for size, _ in mix], [share for _, share in mix])[0]
    raise AssertionError(progress)
