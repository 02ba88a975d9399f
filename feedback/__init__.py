"""Feedback: what people think of answers, kept safe for training.

How a vote travels: a surface takes it from a button and calls `Feedback.vote` with the answer's id
and the audience of the click. `storage.ratings` checks in SQL that this audience may read that
answer, stores the one vote that this person has on it, together with whether person and place agree
to training at this moment, and notes in the same transaction in `outbox` that the answer's record
changed. `feedback.relay` carries the outbox to Argilla: it reads the record as it is by then, so a
changed or withdrawn vote, a deleted document and a forgotten person need no messages of their own.
What curators say there `feedback.curation` brings back, at once where `feedback.webhook` is called,
beside the vote and not over it.
`feedback.datasets` makes training rows of both, by the rules of `feedback.rows` and
`feedback.rulings`, and `feedback.forgotten_rows` deletes those of people who are forgotten;
`feedback.rankings` makes the leaderboard.

Entry point: `Feedback`, the same for every surface. Never here: chat SDKs, torch, SQL.
"""

from feedback.collect import REASONS as REASONS
from feedback.collect import Feedback as Feedback
from feedback.leaderboard_picture import picture as picture
from feedback.rankings import Estimate as Estimate
from feedback.rankings import Leaderboard as Leaderboard
from feedback.rankings import Ranked as Ranked
from storage.ratings import ComparedPlace as ComparedPlace
from storage.ratings import ComparisonId as ComparisonId
from storage.ratings import ComparisonOutcome as ComparisonOutcome
from storage.ratings import MyVote as MyVote
from storage.ratings import VoteOutcome as VoteOutcome
from storage.ratings import Winner as Winner
