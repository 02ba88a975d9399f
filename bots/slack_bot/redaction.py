"""What Slack's tokens look like, for `bots.redaction`."""

import re

TOKENS = re.compile(
    r"\bx(?:ox[a-z]|app|oxe)(?:\.xox[a-z])?-[\w.-]+"  # tokens of every kind, rotated ones too
    r"|(?<=ticket=)[^&\s\"']+|(?<=code=)[^&\s\"']+|(?<=state=)[^&\s\"']+"
    r"|(?<=[Bb]earer )\S+|(?<=[Bb]asic )\S+"
    r"|(?<=/link/)[\w?=&-]+"
)
