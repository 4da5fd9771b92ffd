"""Moesaic as the benchmark sees it: a server process, reached over gRPC by moesaic-bench, and its step counters."""

import json
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.request


class Server:
    def __init__(self, build: pathlib.Path, model: pathlib.Path, threads: int, flags: list[str], join=None):
        """`join` puts the process into a control group."""
        self.bench = build / "bin" / "moesaic-bench"
        self.folder = tempfile.TemporaryDirectory()
        ports = pathlib.Path(self.folder.name) / "ports"
        self.log = open(pathlib.Path(self.folder.name) / "log", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [build / "bin" / "moesaic-server", "--model", model, "--threads", str(threads), "--grpc-port", "0",
             "--metrics-port", "0", "--port-file", ports, "--no-prefix-cache", *flags], stderr=self.log, preexec_fn=join)
        while not (ports.exists() and ports.read_text().count("\n") >= 2):
            if self.process.poll() is not None:
                raise RuntimeError(pathlib.Path(self.log.name).read_text())
            time.sleep(0.05)
        found = dict(line.split("=") for line in ports.read_text().split())
        self.address = f"127.0.0.1:{found['grpc']}"
        self.metrics_url = f"http://127.0.0.1:{found['metrics']}/metrics"

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def counters(self) -> dict[str, float]:
        """Everything that /metrics says, by name and labels."""
        text = urllib.request.urlopen(self.metrics_url).read().decode()
        return {name: float(value) for name, value in
                re.findall(r"^(moesaic_\w+(?:\{[^}]*\})?) ([\d.e+-]+)$", text, re.MULTILINE)}

    def _decode_counters(self) -> tuple[float, float]:
        """Bytes touched and steps taken by steps that held decode rows only."""
        decode = {name: value for name, value in self.counters().items()
                  if re.match(r"moesaic_step\w*_total", name) and 'phase="decode"' in name}
        total_bytes = sum(value for name, value in decode.items() if "bytes" in name)
        return total_bytes, sum(value for name, value in decode.items() if "bytes" not in name)

    def load(self, streams: int, input_tokens: int, output_tokens: int, seed: int) -> list[dict]:
        out = subprocess.run(
            [self.bench, "serve", "--address", self.address, "--num-prompts", str(streams), "--num-warmups", "0",
             "--input-len", str(input_tokens), "--output-len", str(output_tokens), "--seed", str(seed), "--quiet",
             "--save-detailed", "--output-json", "-"], check=True, capture_output=True, text=True).stdout
        requests = json.loads(out)["requests"]
        failed = [request["error"] for request in requests if request["error"]]
        if failed:
            raise RuntimeError(failed[0])
        return requests

    def prefill_seconds(self, tokens: int, seed: int) -> float:
        """From sending a prompt to its first token, through gRPC."""
        request = self.load(1, tokens, 1, seed)[0]
        return request["chunk_s"][0] - request["sent_s"]

    def decode(self, streams: int, context: int, steps: int, seed: int) -> tuple[float, float]:
        """Tokens per second while all streams decode, and bytes that one such step touched on average.

        Counted between the moment the last stream has its first token and the moment the first one has all of its.
        """
        bytes_before, steps_before = self._decode_counters()
        requests = self.load(streams, context, steps + 1, seed)
        bytes_after, steps_after = self._decode_counters()
        begin = max(request["chunk_s"][0] for request in requests)
        end = min(request["chunk_s"][-1] for request in requests)
        tokens = sum(count for request in requests
                     for when, count in zip(request["chunk_s"], request["chunk_tokens"]) if begin < when <= end)
        return tokens / (end - begin), (bytes_after - bytes_before) / max(steps_after - steps_before, 1)
