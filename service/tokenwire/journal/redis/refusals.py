"""What clients are told when the shared store fails them."""

from tokenwire.domain.errors import Code, TokenwireError


def unavailable() -> TokenwireError:
    """The store does not answer."""
    return TokenwireError(
        Code.UNAVAILABLE,
        "JOURNAL_UNAVAILABLE",
        "the journal cannot be reached",
        retryable=True,
        retry_after=1.0,
    )


def full() -> TokenwireError:
    """The store has no memory left."""
    return TokenwireError(
        Code.RESOURCE_EXHAUSTED,
        "JOURNAL_FULL",
        "the journal has no room for another run; ask again later",
        retryable=True,
        retry_after=1.0,
    )


def lost() -> TokenwireError:
    """The store had the run, and has it no more."""
    return TokenwireError(Code.DATA_LOSS, "JOURNAL_LOST", "the journal was lost with this run")
