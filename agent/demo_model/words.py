"""Random words, names and values; a fixed share of them is never used in training.

Pure: every function takes its `random.Random`. A word is held out when its checksum says so, so
that training and tests draw from disjoint sets without a list of either.
"""

import zlib
from collections.abc import Callable
from random import Random


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ONSETS = _list("b c d f g h j k l m n p r s t v w z br ch cl cr dr fl gr pl pr sh sk st th tr")
_VOWELS = _list("a e i o u ai ea ee io oa ou")
_CODAS = ["", "", "", "n", "r", "l", "s", "t", "m", "k", "nd", "rt", "st", "ck", "x"]
ENGLISH = _list(
    "apple river stone window garden table paper silver winter summer orange yellow bottle candle "
    "bridge forest island market mirror needle pencil rabbit saddle ticket tunnel velvet wagon "
    "anchor basket button carpet castle cheese cherry circle corner cotton dragon engine feather "
    "finger flower ginger hammer harbor honey jacket kettle ladder lemon letter magnet marble "
    "meadow monkey mountain music ocean onion oven palace parrot pepper pillow planet pocket "
    "potato puzzle ribbon rocket salmon school shadow signal spider spoon spring square station "
    "street sugar temple thunder tiger tower trumpet turtle valley violin walnut water whistle "
    "wolf yarn zebra blue green red white black small large fast slow old new warm cold quiet"
)
_VERBS = _list(
    "get set find list make send read open close start stop check fetch update delete create show "
    "move copy count load save turn scan sort rank book order print lock ping sync plan test"
)
_NOUNS = _list(
    "user file order item price room light door report task ticket note invoice agent model token "
    "cache slot node disk route queue log key page table record image song event timer lamp pump "
    "robot badge parcel sensor account package folder message contract camera channel garden"
)
PARAMETERS = _list(
    "name id city text title value count size color mode level user path unit amount date query "
    "label speed limit target source email status topic format length width height weight price "
    "owner region group kind start end page language place number reason symbol zone host port"
)


def is_held_out(text: str) -> bool:
    """Whether `text` belongs to the tenth that training never sees."""
    return zlib.crc32(text.encode()) % 10 == 0


def _matching(rng: Random, make: Callable[[Random], str], *, held_out: bool) -> str:
    while True:
        text = make(rng)
        if is_held_out(text.lower()) == held_out:
            return text


def _syllables(rng: Random) -> str:
    count = rng.choice((1, 2, 2, 2, 3))
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(count)]
    return "".join(parts) + rng.choice(_CODAS)


def word(rng: Random, *, held_out: bool = False) -> str:
    """A pronounceable lower-case word of one to three syllables."""
    return _matching(rng, _syllables, held_out=held_out)


def name(rng: Random, *, held_out: bool = False) -> str:
    """A capitalised word."""
    return word(rng, held_out=held_out).capitalize()


def any_word(rng: Random, *, held_out: bool = False) -> str:
    """A random word, a name or (never held out) an English word."""
    draw = rng.random()
    if draw < 0.35 and not held_out:
        return rng.choice(ENGLISH)
    return name(rng, held_out=held_out) if draw > 0.85 else word(rng, held_out=held_out)


def _tool_name(rng: Random) -> str:
    draw = rng.random()
    noun = rng.choice(_NOUNS) if draw < 0.4 else _syllables(rng)
    if draw > 0.85:
        return noun
    if draw > 0.7:
        return f"{noun}_{rng.choice(_NOUNS) if rng.random() < 0.5 else _syllables(rng)}"
    verb = rng.choice(_VERBS)
    if draw < 0.1:
        return f"{verb}_{noun}_{rng.choice(_NOUNS)}"
    return f"{verb}_{noun}"


def tool_name(rng: Random, *, held_out: bool = False) -> str:
    """A function name such as `find_parcel`, `get_lomai` or `troust_key`."""
    return _matching(rng, _tool_name, held_out=held_out)


def _parameter_name(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.5:
        return rng.choice(PARAMETERS)
    if draw < 0.75:
        return _syllables(rng)
    return f"{rng.choice(PARAMETERS)}_{rng.choice(PARAMETERS)}"


def parameter_name(rng: Random, *, held_out: bool = False) -> str:
    """A parameter name such as `city`, `brelo` or `start_date`."""
    return _matching(rng, _parameter_name, held_out=held_out)


def _phrase(rng: Random) -> str:
    parts = [
        rng.choice(ENGLISH) if rng.random() < 0.4 else _syllables(rng)
        for _ in range(rng.choice((2, 2, 3, 4)))
    ]
    text = " ".join(parts)
    return text.capitalize() if rng.random() < 0.25 else text


def phrase(rng: Random, *, held_out: bool = False) -> str:
    """Two to four words; always quoted where it stands in a request."""
    return _matching(rng, _phrase, held_out=held_out)


def _number(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.5:
        return str(rng.randint(0, 130))
    if draw < 0.9:
        return str(rng.randint(0, 10 ** rng.randint(3, 6)))
    return f"{rng.randint(0, 200)}.{rng.randint(1, 99)}"


def number(rng: Random, *, held_out: bool = False) -> str:
    """An integer of up to six digits or a decimal, as text (JSON-valid, round trip safe)."""
    while True:
        text = _matching(rng, _number, held_out=held_out)
        if "." not in text or str(float(text)) == text:
            return text
