"""What random schemas are made of: names, texts, patterns, numbers."""

from __future__ import annotations

NAMES = ("a", "b", "kind", "name", "straße", "名前", "ключ", "😀", 'say "hi"', "back\\slash",
         "a/b~c", "")  # fmt: skip
WORDS = ("red", "green", "ünïcødé", "日本語", "😀👍", 'q"q', "tab\there", "line\nbreak", "\\", "",
         "é")  # fmt: skip
PATTERNS = ("^[a-c]{2}$", "^[A-Z]{2}-\\d{3}$", "^(ab|cd)+$", "x{2,4}", "^\\w{1,8}$", "[0-9]$",
            "^é?ß$", "^[^a-y]{1,4}$", "^a|b$", "^\\S{3}", "^.{2,5}$", "^\\s?-$", '^[^"]{1,9}$',
            "^(?:\\d{1,3}\\.){3}$")  # fmt: skip
PATTERN_PARTS = ("a", "[b-e]", "\\d", "(?:x|yz)", '[^\\\\"]', "\\w", "\\.", "\\-", "é", "[ -~]",
                 ".", '[^"]', "[^\\\\]", "[^,]", "\\S", "\\W", "\\D", "\\s", "[^\\s@]",
                 "[^\\w]")  # fmt: skip
FORMATS = ("date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid",
           "uri")  # fmt: skip
UNKNOWN_FORMATS = ("shoe-size", "regex", "json-pointer", "idn-email")
STEPS = (2, 3, 5, 7, 0.5, 0.25, 0.1, 0.01, 1.5, 100)
NAME_PATTERNS = ("^x_", "^[A-Z]+$", "_id$")
