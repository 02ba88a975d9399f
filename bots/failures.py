"""How a failure is logged: what was expected in one line, our own mistakes with their traceback."""

import logging


def log_failure(
    logger: logging.Logger, what: str, error: BaseException, *, expected: bool, action: str
) -> None:
    """Log that something failed, by the error's type alone: its text may quote a person.

    Args:
        what: "a click", say.
        expected: whether it may happen without a mistake of ours.
        action: names it for machines.
    """
    logger.log(
        logging.WARNING if expected else logging.ERROR,
        "%s failed: %s",
        what,
        type(error).__name__,
        exc_info=None if expected else error,
        extra={"action": action},
    )
