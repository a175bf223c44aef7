"""The calls to the operating system, in one place: tests let them fail."""

import os
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


class Disk:
    """Files of the journal. Everything here may block, and raises OSError."""

    def create(self, path: Path) -> int:
        """Opens an empty file for this user alone, and returns its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)

    def write(self, descriptor: int, data: memoryview, at: int) -> int:
        """Writes as many bytes as the disk takes, and returns how many."""
        return os.pwrite(descriptor, data, at)

    def cut(self, descriptor: int, size: int) -> None:
        """Shortens a file."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Waits until a file's bytes are on the disk."""
        os.fdatasync(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Waits until a folder's names are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Deletes a file."""
        path.unlink(missing_ok=True)
