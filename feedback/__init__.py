"""Feedback: votes, comparisons and corrections on their way to clean training data.

Empty so far. The room exists because the import contract names it: `bots | training` may import it,
it may import `engine | storage`, and no chat SDK or torch ever enters.
"""
