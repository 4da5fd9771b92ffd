"""What every benchmark writes beside its figures, and how it sums them up."""

import json
import pathlib
import platform
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBE_MS = 150


def summary(values: list[float]) -> dict:
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "q1": quartiles[0], "q3": quartiles[2], "n": len(values)}


def machine() -> dict:
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                  if line.startswith("model name")), platform.processor())
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    return {"cpu": model, "commit": commit.strip(), "date": time.strftime("%Y-%m-%d")}


def save(result: dict, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


class LimitProbe:
    """Read bandwidth and arithmetic peak of this machine, in short slices."""

    def __init__(self, build: pathlib.Path, threads: int):
        self.process = subprocess.Popen([build / "bin" / "limit_probe", "--slices", "--threads", str(threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, what: str, key: str, milliseconds: int = PROBE_MS) -> float:
        self.process.stdin.write(f"{what} {milliseconds}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())[key] * 1e9

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
