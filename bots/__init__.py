"""Bots: everything people touch, and the composition root.

Does: one turn of conversation (`assistant`), the surfaces that carry it (`console`, `web`), the
background `worker`, the supervisor behind `parley up`, the `parley` command line.

Does not: speak SQL (that is `storage`) or run a model (that is `engine`).

Entry points: `parley <verb>` = `python -m bots <verb>`; `bots.assistant.Assistant.answer` is the
one way to answer a question, for every surface.
"""
