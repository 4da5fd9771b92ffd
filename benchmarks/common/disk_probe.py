"""The disk's own bandwidth: sequential direct reads of a file, several at a time, by plain system calls."""

import concurrent.futures
import itertools
import mmap
import os
import pathlib
import time

READ_BYTES = 2 << 20
READS_AT_A_TIME = 4
# As much memory in turn as a cache does not hold: reading into the same few pages again and again is cheaper.
BUFFERS_PER_THREAD = 8


class DiskProbe:
    def __init__(self, path: pathlib.Path):
        self.file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.reads = os.fstat(self.file).st_size // READ_BYTES
        self.next = itertools.count()
        self.threads = concurrent.futures.ThreadPoolExecutor(READS_AT_A_TIME)
        self.buffers = [[mmap.mmap(-1, READ_BYTES) for _ in range(BUFFERS_PER_THREAD)] for _ in range(READS_AT_A_TIME)]

    def _read(self, buffers: list[mmap.mmap], end: float) -> int:
        total = 0
        for buffer in itertools.cycle(buffers):
            if time.perf_counter() >= end:
                return total
            total += os.preadv(self.file, [buffer], next(self.next) % self.reads * READ_BYTES)

    def bytes_per_s(self, seconds: float) -> float:
        """Goes on where the last slice ended."""
        begin = time.perf_counter()
        total = sum(self.threads.map(self._read, self.buffers, [begin + seconds] * READS_AT_A_TIME))
        return total / (time.perf_counter() - begin)

    def close(self) -> None:
        self.threads.shutdown()
        os.close(self.file)
