"""One handbook with one fact, a question about it, and what the model is scripted to say."""

HANDBOOK = """# Annual leave

Full-time employees of Marlow Tools receive 27 days of paid annual leave each calendar year.
"""
QUESTION = "How many days of paid annual leave do full-time employees receive?"
ANSWER = "Full-time employees of Marlow Tools receive 27 days of paid annual leave [1]."
LEAVE = "27 days of paid annual leave"
