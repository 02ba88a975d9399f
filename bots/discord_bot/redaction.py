"""What Discord's tokens look like, for `bots.redaction`."""

import re

TOKENS = re.compile(
    r"(?<![\w-])[\w-]{18,}\.[\w-]{5,8}\.[\w-]{27,}"  # of a bot
    r"|(?<=/interactions/)\d+/[^/\s\"']+|(?<=/webhooks/)\d+/[^/\s\"'?]+"  # of an interaction
    r"|\baW50ZXJhY3Rpb2[\w=+/-]+"  # the same by itself: "interaction:…" in base64
    r"|(?<=['\"]token['\"]: ['\"])[^'\"]+|(?<=Bot )[\w.-]{20,}|(?<=[Bb]earer )\S+"
)
