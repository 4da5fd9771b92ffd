"""The disk's own bandwidth: direct reads of a file, many at a time, by plain system calls.

At random places: on a disk that is really a network or an array of others, one sequential stream meets fewer of them.
"""

import concurrent.futures
import ctypes
import itertools
import mmap
import os
import pathlib
import random
import time

READ_BYTES = 1 << 20
READS_AT_A_TIME = 32
# As much memory in turn as a cache does not hold: reading into the same few pages again and again is cheaper.
BUFFERS_PER_THREAD = 2
HUGE_PAGE = 2 << 20


class DiskProbe:
    def __init__(self, path: pathlib.Path):
        self.file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.reads = os.fstat(self.file).st_size // READ_BYTES
        self.random = random.Random(1)
        self.threads = concurrent.futures.ThreadPoolExecutor(READS_AT_A_TIME)
        self.buffers = [self._buffers() for _ in range(READS_AT_A_TIME)]

    @staticmethod
    def _buffers() -> list[memoryview]:
        """On huge pages, which the disk's transfers need fewer pieces for, and touched."""
        memory = mmap.mmap(-1, BUFFERS_PER_THREAD * READ_BYTES + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        view = memoryview(memory)
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        start = -address % HUGE_PAGE
        view[:] = bytes(len(view))
        return [view[start + i * READ_BYTES:start + (i + 1) * READ_BYTES] for i in range(BUFFERS_PER_THREAD)]

    def _read(self, buffers: list[memoryview], end: float) -> int:
        total = 0
        for buffer in itertools.cycle(buffers):
            if time.perf_counter() >= end:
                return total
            total += os.preadv(self.file, [buffer], self.random.randrange(self.reads) * READ_BYTES)

    def bytes_per_s(self, seconds: float) -> float:
        begin = time.perf_counter()
        total = sum(self.threads.map(self._read, self.buffers, [begin + seconds] * READS_AT_A_TIME))
        return total / (time.perf_counter() - begin)

    def close(self) -> None:
        self.threads.shutdown()
        os.close(self.file)
