"""The web page: one team channel in the browser.

Does: several people in one thread, everybody sees every question and every answer as it streams;
drop a file and watch it become searchable; stop, retry, expand the sources of an answer; rate
answers, write better ones, and agree that both may train models.

Does not: answer (that is `bots.assistant`, as for every surface) or keep anything of its own. What
the page shows is read from storage; only what is happening right now is held in memory.

Entry points: `server.serve` = `python -m bots web`. `channel.Channel` is the page without a
browser: people, turns, documents; `live.Hub` carries what happens to every open page;
`page.build_page` is the Gradio page; `render` is the only place that makes HTML out of what people,
documents and models wrote; `leaderboard` is the page of the rankings; `rating` takes votes,
better answers and consent, by the names that `people` turns into members.

Why a WebSocket beside Gradio's own events: a Gradio event belongs to the browser that started it,
but a channel must show everybody's questions, and a browser that hangs up must not stop a turn.
Asking, uploading and the buttons are Gradio events that return at once; what follows from them
reaches all pages over one WebSocket each. (Server-sent events would count towards a browser's six
connections per host, so a third tab would hang.)

Why the HTML is made here and not by Gradio's chat component: it loads the images that a document's
or a model's Markdown names, and it redraws the whole history for every token.
"""
