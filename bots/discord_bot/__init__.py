"""Discord: the assistant as a Discord app, on discord.py.

A message or command becomes a `Question` that the database has before Discord gets its ack
(`intake`, `ask`), and the queue of turns does the rest: `turn` asks Discord once more who may read,
and opens the thread; `delivery` shows a turn's events as messages. `interactions` frames everything
that is clicked or typed as a command; `audience` knows who may read what. `process` is the way in.

What Slack needs as well lives in `bots`; here it is only said in Discord's way.
"""
