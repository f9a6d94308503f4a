"""What opens doors, found in texts that are about to be written down: the last line of defence.

Nobody hands credentials to a log. This is for the day when somebody does, or when an error's own
words repeat one. Pure.
"""

from __future__ import annotations

import re
from typing import Any

NOT_LOGGED = "[not logged]"

_OPENERS = re.compile(
    r"""
    (?P<url>(?<=://)[^\s/?\#"'\\]*(?=@))  # RFC 3986, 3.2.1: a name and a password, to the last @
    | (?P<header>(?:proxy-)?authorization["']?\s*[:=]\s*["']?)(?:[a-z]+[ ])?(?!\[not)[^\s"'\\,;]+
    | (?P<cookie>\bcookie["']?\s*[:=]\s*+["']?+)(?!\[not)[^\r\n"']+
    | (?P<named>(?:api[-_]?key["']?\s?[:=]|(?:token|secret|passw(?:or)?d|signature)(?:=|["']:))
      \s?+["']?+)(?!\[not)[^&\s\#"'\\,;]+
    | (?P<bearer>\bbearer\s+)(?!\[not)[^\s"'\\,;]{4,}
    | (?P<basic>\b(?-i:Basic)[ ])[a-z0-9+/]{6,}={0,2}
    | (?P<query>[?&](?:key|sig)=)
      (?!\[not)[^&\s\#"'\\]+
    | \b(?-i:eyJ)[\w-]{4,}\.[\w-]+(?:\.[\w-]*)*             # a JWS or JWE in its compact form
    | (?P<own>\b(?-i:pk_))[\w-]{8,}
    | (?P<other>\b(?-i:sk-|hf_))[\w-]{8,}
    | (?P<hash>\$(?-i:argon2)\w*)(?:\$[\w=,+/.-]+)+
    | (?P<pem>-----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----)(?!\[not)[^-]*
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SIGNS = (
    *("=", "://", "earer", "EARER", "uthorization", "UTHORIZATION", "ookie", "OOKIE"),
    *("ey:", "EY:", '":', "':", "Basic ", "eyJ", "pk_", "sk-", "hf_", "-----BEGIN"),
)
"""One of them is in every text that has something to cut; looking for them costs a tenth."""
_QUOTED = re.compile(
    r"""(?s)(?<!\w)b?(?:'[^'\\]*+(?:\\.[^'\\]*+)*+'?|"[^"\\]*+(?:\\.[^"\\]*+)*+"?)"""
)
"""A quote that is not closed goes on to the end."""


def redacted(text: str) -> str:
    """The text without passwords of URLs, tokens in queries, what stands in `Authorization`, bearer
    tokens, JWTs and API keys."""
    for sign in _SIGNS:
        if sign in text:
            return _OPENERS.sub(_masked, text)
    return text


def redacted_within(value: Any) -> Any:
    """The same for a text, and for those in lists and tables; anything else stays as it is."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list | tuple):
        return [redacted_within(one) for one in value]
    if isinstance(value, dict):
        return {name: redacted_within(one) for name, one in value.items()}
    return value


def without_quotes(text: str) -> str:
    """The words of an exception without what they quote: `int('...')` repeats what it was given."""
    return _QUOTED.sub("'...'", text)


def _masked(found: re.Match[str]) -> str:
    before = found[found.lastgroup] if found.lastgroup not in (None, "url") else ""
    return f"{before}{NOT_LOGGED}"
