"""One process at a time uses a journal's folder."""

import fcntl
import os
from pathlib import Path

from tokenwire.journal.file.disk import FILE_MODE
from tokenwire.journal.journal import JournalError


class FolderLock:
    """Held from its making until `release`, or the end of the process. Raises JournalError if another one holds it."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise JournalError("TOKENWIRE_JOURNAL: another process uses this folder") from None
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Lets another process in."""
        os.close(self._descriptor)
