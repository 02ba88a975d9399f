"""What people are told: the fixed sentences of a turn, every error as a sentence with a remedy."""

from bots.errors import BotsError, Reply, TurnFailed
from bots.messages import Citation
from engine.errors import (
    DeadlineExceeded,
    EngineBusy,
    EngineUnavailable,
    ModelNotFound,
    PromptTooLong,
    UpstreamFailed,
)
from storage.errors import (
    DiskFull,
    DocumentNotFound,
    DocumentRejected,
    MessageNotFound,
    NotFound,
    StorageUnavailable,
)

NOT_FOUND = "I found nothing about this in the documents that I may read here."
NO_DOCUMENTS = (
    "There are no documents here yet. Add one by dropping a file onto the page or with "
    "`parley ingest FILE`, then ask again."
)
STILL_READING = (
    "The documents here are still being read; ask again when one of them is ready "
    "(`parley documents` shows how far they are)."
)
STOPPED = "Stopped before anything was written."
SLOW = Reply(
    text="The language model is slow just now; the answer appears here as soon as it comes.",
    retryable=True,
)
BROKEN = Reply(
    text="Something went wrong on our side, again and again; it was logged. Please tell whoever "
    "runs Parley, and ask again later.",
    retryable=True,
)
NOT_HERE = "This button belongs to another conversation, or what it was for has been deleted."
EMPTY_QUESTION = "Ask me something in words, and I look it up in the documents."

BUSY = Reply(
    text="I am busy with other questions just now; please try again in a few seconds.",
    retryable=True,
    retry_after_s=5.0,
)


def closest_passage(citation: Citation) -> str:
    """What stands under an answer that no source supports, so that people can judge themselves."""
    return (
        "The documents do not confirm this in these words; the passage closest to the question is: "
        f"“{citation.quote}” [{citation.number}]"
    )


def reply_to(error: BaseException) -> Reply:
    """The sentence for the person whose request ended in `error`; never its internals."""
    match error:
        case TurnFailed():
            return error.reply
        case EngineBusy():
            seconds = max(1, round(error.retry_after_s))
            return Reply(
                text=f"I am busy with other questions; please try again in {seconds} s.",
                retryable=True,
                retry_after_s=error.retry_after_s,
            )
        case EngineUnavailable() | UpstreamFailed():
            return _later(
                "The language model does not answer right now; please try again in a minute. "
                "If it stays so, `parley check` says what is wrong."
            )
        case DeadlineExceeded():
            return _later(
                "The answer took too long and was given up; please try again, or ask for less."
            )
        case PromptTooLong():
            return _never(
                f"This question is too long: it needs {error.tokens} tokens and the model holds "
                f"{error.limit}. Please shorten it."
            )
        case ModelNotFound():
            return _later(
                f"The model {error.name!r} is not loaded; whoever runs Parley finds the ones that "
                "are with `parley models`."
            )
        case StorageUnavailable():
            return _later(
                "The database does not answer right now; please try again in a minute. "
                "If it stays so, `parley check` says what is wrong."
            )
        case DiskFull():
            return _later("There is no disk space left; please tell whoever runs Parley.")
        case DocumentRejected():
            return _never(error.reason)
        case DocumentNotFound():
            return _never("There is no such document here any more.")
        case MessageNotFound():
            return _never("There is no such question here any more.")
    return _later(
        "Something went wrong on our side; it was logged. Please try again, and tell whoever runs "
        "Parley if it happens twice."
    )


def sentence_for(error: BaseException, *, clicked: bool = False) -> str:
    """What to tell somebody whose command or click ended in `error`; plain, never its internals.

    Args:
        clicked: whether the ids that were used came from a button, which may be old or forged.
    """
    if clicked and isinstance(error, NotFound | ValueError):
        return NOT_HERE
    if isinstance(error, BotsError) and not isinstance(error, TurnFailed):
        return str(error)
    if isinstance(error, TimeoutError):
        return "That took too long and may not have been done; please try again in a minute."
    return reply_to(error).text


def delayed(error: BaseException) -> Reply:
    """What is said while an answer is tried again and again, for as long as `error` lasts."""
    cause = error.__cause__ if isinstance(error, TurnFailed) else error
    match cause:
        case EngineBusy():
            why = "I am busy with other questions"
        case EngineUnavailable() | UpstreamFailed():
            why = "The language model does not answer right now"
        case ModelNotFound():
            why = f"The model {cause.name!r} is not loaded right now"
        case DeadlineExceeded():
            return SLOW
        case _:
            why = "The database does not answer right now"
    return _later(f"{why}; your question is kept, and the answer appears here as soon as it comes.")


def _later(text: str) -> Reply:
    return Reply(text=text, retryable=True)


def _never(text: str) -> Reply:
    return Reply(text=text, retryable=False)
