"""A disk that can be full or read-only: a tmpfs where one may mount, else limits on files and rights."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path


class SmallDisk:
    """Of 8 MB. Without the right to mount, `fill` bounds the size of every file that this process writes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.unlimited = folder, resource.getrlimit(resource.RLIMIT_FSIZE)
        self.mounted = self._call("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))

    def _call(self, *command: str) -> bool:
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def fill(self, left: int) -> None:
        """Leave so many bytes free."""
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (left, self.unlimited[1]))
            return
        with (self.folder / "ballast").open("wb", buffering=0) as stream:
            while stream.tell() < 8 * 2**20 - left and stream.write(bytes(4096)):
                pass

    def forbid(self) -> None:
        """Make it read-only."""
        if not (self.mounted and self._call("mount", "-o", "remount,ro", str(self.folder))):
            self.folder.chmod(0o500)

    def mend(self) -> None:
        if self.mounted:
            self._call("mount", "-o", "remount,rw", str(self.folder))
        self.folder.chmod(0o700)
        resource.setrlimit(resource.RLIMIT_FSIZE, self.unlimited)
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        self.mend()
        if self.mounted:
            self._call("umount", "-l", str(self.folder))
