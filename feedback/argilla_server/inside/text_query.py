"""Elasticsearch's simple query syntax, read into a tree that SQL can be made of.

Runs inside Argilla's environment.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

Node = tuple[Any, ...]
"""Part of a text query: ("words", words, last is a prefix), ("phrase", words), ("not", part),
("and", part, part) or ("or", part, part); words are lower-case."""
_TOKEN = re.compile(
    r'\s*(?:(?P<phrase>"(?:[^"\\]|\\.)*"?)(?:~\d*)?|(?P<operator>[()|+]|-(?=\S))'
    r'|(?P<word>(?:[^\s"()|+\\]|\\.)+))'
)
_WORD = re.compile(r"[^\W_]+")


def parse(query: str) -> Node | None:
    """Read a query in Elasticsearch's simple syntax; None = it has no words, so nothing matches.

    https://www.elastic.co/guide/en/elasticsearch/reference/current/query-dsl-simple-query-string-query.html
    """
    return _sequence(_TOKEN.finditer(query))


def _sequence(tokens: Iterator[re.Match[str]]) -> Node | None:
    """Clauses up to the closing parenthesis, joined from left to right as Lucene does."""
    whole: Node | None = None
    join_by, negated = "and", False
    for token in tokens:
        sign = token["operator"]
        if sign == ")":
            break
        if sign == "-":
            negated = not negated
            continue
        if sign in ("|", "+"):
            join_by = "or" if sign == "|" else "and"
            continue
        clause = _sequence(tokens) if sign == "(" else _clause(token)
        if clause is not None:
            clause = ("not", clause) if negated else clause
            whole = clause if whole is None else (join_by, whole, clause)
        join_by, negated = "and", False
    return whole


def _clause(token: re.Match[str]) -> Node | None:
    if token["phrase"] is not None:
        words = words_of(token["phrase"])
        return ("phrase", words) if words else None
    written = token["word"]
    words = words_of(re.sub(r"~\d*$", "", written))
    starts = written.endswith("*") and not written.endswith("\\*")
    return ("words", words, starts) if words else None


def words_of(content: str) -> tuple[str, ...]:
    """Runs of letters and digits, in lower case."""
    return tuple(_WORD.findall(content.lower()))


def to_tsquery(node: Node) -> str:
    """The query as Postgres reads it; words hold letters and digits only, so nothing is quoted."""
    kind, *parts = node
    if kind == "words":
        words, starts = parts
        return "(" + " & ".join(words) + (":*)" if starts else ")")
    if kind == "phrase":
        return "(" + " <-> ".join(parts[0]) + ")"
    if kind == "not":
        return f"!{to_tsquery(parts[0])}"
    sign = " & " if kind == "and" else " | "
    return "(" + sign.join(to_tsquery(part) for part in parts) + ")"


def count_in(node: Node, words: Sequence[str]) -> int:
    """How often a query's words stand among `words`; 0 = no match."""
    kind, *parts = node
    if kind == "words":
        wanted, starts = parts
        counts = [words.count(word) for word in wanted]
        if starts:
            counts[-1] = sum(word.startswith(wanted[-1]) for word in words)
        return sum(counts) if all(counts) else 0
    if kind == "phrase":
        phrase, length = list(parts[0]), len(parts[0])
        return sum(list(words[i : i + length]) == phrase for i in range(len(words)))
    if kind == "not":
        return int(not count_in(parts[0], words))
    found = [count_in(part, words) for part in parts]
    return sum(found) if all(found) or kind == "or" else 0
