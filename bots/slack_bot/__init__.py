"""Slack: the assistant as a Slack app, on slack-bolt.

Listeners turn an event into a `Question`, claim it in the database before they acknowledge it, and
leave the rest to the queue of turns; `delivery` shows a turn's events as Slack messages.
"""
