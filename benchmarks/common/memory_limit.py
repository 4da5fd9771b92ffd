"""A control group that limits the memory of a process: anonymous pages and the file pages that it reads alike."""

import os
import pathlib

ROOT = pathlib.Path("/sys/fs/cgroup")


class MemoryLimitError(RuntimeError):
    """This machine, or this user, cannot limit a process's memory."""


class MemoryLimit:
    """Version 1 or 2 of control groups. Processes join with `join` as their `preexec_fn`."""

    def __init__(self, name: str, limit: int):
        self.v2 = (ROOT / "cgroup.controllers").exists()
        parent = ROOT if self.v2 else ROOT / "memory"
        self.folder = parent / f"moesaic-{name}-{os.getpid()}"
        try:
            if self.v2 and "memory" not in (ROOT / "cgroup.subtree_control").read_text(encoding="utf-8").split():
                (ROOT / "cgroup.subtree_control").write_text("+memory", encoding="utf-8")
            self.folder.mkdir()
            self._write("memory.max" if self.v2 else "memory.limit_in_bytes", limit)
            # No swap instead: a limit that pages out is none.
            swap = "memory.swap.max" if self.v2 else "memory.memsw.limit_in_bytes"
            if (self.folder / swap).exists():
                self._write(swap, 0 if self.v2 else limit)
        except OSError as error:
            if self.folder.is_dir():
                self.folder.rmdir()
            raise MemoryLimitError(f"cannot limit memory by a control group ({error}): run as root on a machine with the "
                                   "memory controller (version 1 or 2). Without the limit the page cache would hold what "
                                   "is said not to fit, so nothing is measured.") from error

    def _write(self, file: str, value: int) -> None:
        (self.folder / file).write_text(str(value), encoding="utf-8")

    def join(self) -> None:
        self._write("cgroup.procs", os.getpid())

    def peak_bytes(self) -> int | None:
        """Of all that ran in it, where the kernel counts that."""
        file = self.folder / ("memory.peak" if self.v2 else "memory.max_usage_in_bytes")
        return int(file.read_text(encoding="utf-8")) if file.exists() else None

    def close(self) -> None:
        """After its processes have ended."""
        self.folder.rmdir()
