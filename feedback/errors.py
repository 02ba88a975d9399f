"""What can go wrong between Parley and Argilla, by who must act."""


class FeedbackError(Exception):
    """Base of all errors of this package; the text says what to do."""


class ArgillaUnavailable(FeedbackError):
    """Argilla does not answer, or not now: wait and try again."""


class ArgillaFailed(ArgillaUnavailable):
    """Argilla broke down over a request; perhaps only over what was sent."""


class RecordRefused(FeedbackError):
    """Argilla refuses what was sent, now and always; to be looked at by a person."""


class ArgillaMisconfigured(FeedbackError):
    """The operator must mend the address, the key or a data set that is not ours."""


class WebhookForged(FeedbackError):
    """Somebody who is not Argilla sent it."""


class WebhookUnknown(FeedbackError):
    """Argilla has not said yet how it signs."""
