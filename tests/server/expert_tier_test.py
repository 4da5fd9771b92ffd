#!/usr/bin/env python3
"""moesaic-server with less memory than its experts take: the same tokens, and damage that is noticed.

  tests/server/expert_tier_test.py --server-binary build/bin/moesaic-server --model models/wordnet-moe
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import grpc

ARGUMENTS = None
START_SECONDS = 120
PROMPTS = ("violin", "a small animal that", "the act of")


class ExpertTierTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.expected = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.packs = self.folder / "packs"
        self.servers = 0

    def spawn(self, *flags):
        """A server process, and the file where it will write its ports."""
        self.servers += 1
        ports = self.folder / f"ports{self.servers}"
        log = open(self.folder / f"log{self.servers}", "w+")
        self.addCleanup(log.close)
        server = subprocess.Popen([ARGUMENTS.server_binary, f"--model={ARGUMENTS.model}", "--grpc-port", "0",
                                   "--metrics-port", "0", "--port-file", ports, "--threads", "2", *flags], stderr=log)
        server.log = log
        self.addCleanup(self.stop, server)
        return server, ports

    def start(self, *flags):
        """A server that serves, and its ports."""
        return self.wait(*self.spawn(*flags))

    def wait(self, server, ports):
        deadline = time.monotonic() + START_SECONDS
        while not ports.exists():
            self.assertIsNone(server.poll(), self.log(server))
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        return server, dict(line.split("=") for line in ports.read_text().split())

    def tiered(self, budget, *flags):
        return self.start("--expert-memory", budget, "--pack-dir", self.packs, *flags)

    @staticmethod
    def stop(server):
        if server.poll() is None:
            server.terminate()
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    @staticmethod
    def log(server):
        server.log.seek(0)
        return server.log.read()

    def refused(self, *flags):
        """What a server says that ends at the start."""
        server, _ = self.spawn(*flags)
        self.assertEqual(server.wait(timeout=START_SECONDS), 1, self.log(server))
        return self.log(server)

    def cli(self, ports, command, *arguments):
        binary = pathlib.Path(ARGUMENTS.server_binary).parent / "moesaic-cli"
        return subprocess.run([binary, command, "--address", f"127.0.0.1:{ports['grpc']}", *arguments],
                              capture_output=True, text=True, timeout=120)

    def generate(self, ports, prompt):
        return self.cli(ports, "generate", "--temperature", "0", "--ignore-eos", "--max-tokens", "24", "--json", prompt)

    def tokens(self, ports):
        """Greedy tokens of every prompt."""
        tokens = []
        for prompt in PROMPTS:
            answer = self.generate(ports, prompt)
            self.assertEqual(answer.returncode, 0, answer.stderr)
            tokens.append([token for line in answer.stdout.splitlines() for token in json.loads(line)["token_ids"]])
        return tokens

    def expected_tokens(self):
        if type(self).expected is None:
            server, ports = self.start()
            type(self).expected = self.tokens(ports)
            self.stop(server)
        return type(self).expected

    def metric(self, ports, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics']}/metrics") as page:
            for line in page.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[-1])
        self.fail(f"no metric {name}")

    def pack(self):
        (pack,) = self.packs.glob("*.pack")
        return pack

    def smallest(self):
        """The smallest budget, as the refusal of less names it."""
        words = self.refused("--expert-memory", "1", "--pack-dir", self.packs)
        self.assertIn("--expert-memory", words)
        return re.search(r"at least .*\((\d+) bytes\): two stripes", words)[1]

    def test_every_budget_gives_the_same_tokens_and_is_kept(self):
        for budget in (self.smallest(), "25%", "100%"):
            flags = ("--host-memory", "6MiB") if budget == "100%" else ()
            server, ports = self.tiered(budget, *flags)
            self.assertEqual(self.tokens(ports), self.expected_tokens(), budget)
            self.assertLessEqual(self.metric(ports, "moesaic_expert_memory_high_water_bytes"),
                                 self.metric(ports, "moesaic_expert_memory_budget_bytes"))
            if not budget.endswith("%"):
                self.assertEqual(self.metric(ports, "moesaic_expert_memory_budget_bytes"), float(budget))
            self.stop(server)
            self.assertEqual(server.returncode, 0, self.log(server))

    def test_a_pack_damaged_between_runs_is_made_anew(self):
        self.stop(self.tiered("25%")[0])
        whole = self.pack().read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) * 2 // 3] ^= 4
        header = bytearray(whole)
        header[20] ^= 4
        for damaged in (whole[: len(whole) // 2], whole[:-1], b"", bytes(flipped), bytes(header)):
            self.pack().write_bytes(damaged)
            server, ports = self.tiered("25%", "--expert-policy", "on-demand")
            answers = [self.generate(ports, prompt) for prompt in PROMPTS]
            if any(answer.returncode != 0 for answer in answers):  # found when it was read
                for answer in answers:
                    self.assertTrue(answer.returncode == 0 or "DATA_LOSS" in answer.stderr, answer.stderr)
                self.stop(server)
                server, ports = self.tiered("25%")
            self.assertEqual(self.tokens(ports), self.expected_tokens())
            self.stop(server)

    def test_damage_under_a_running_server_fails_requests_and_nothing_else(self):
        server, ports = self.tiered("25%", "--expert-policy", "on-demand")
        self.assertEqual(self.tokens(ports), self.expected_tokens())
        whole = self.pack().read_bytes()
        first = len(whole) // 2
        with open(self.pack(), "r+b") as pack:
            pack.seek(first)
            pack.write(bytes(byte ^ 1 for byte in whole[first:]))
        answer = self.generate(ports, "violin")
        self.assertNotEqual(answer.returncode, 0)
        self.assertIn("DATA_LOSS", answer.stderr)
        self.assertEqual(self.cli(ports, "health").stdout, "SERVING\n")
        with open(self.pack(), "r+b") as pack:
            pack.truncate(first)
        answer = self.generate(ports, "violin")
        self.assertNotEqual(answer.returncode, 0)
        self.assertTrue("DATA_LOSS" in answer.stderr or "UNAVAILABLE" in answer.stderr, answer.stderr)
        with open(self.pack(), "r+b") as pack:
            pack.write(whole)
        self.assertEqual(self.tokens(ports), self.expected_tokens())
        self.assertIsNone(server.poll())

    def test_two_servers_share_a_folder(self):
        flags = ("--expert-memory", "25%", "--pack-dir", self.packs)
        for server, ports in [self.spawn(*flags) for _ in range(2)]:
            _, ports = self.wait(server, ports)
            self.assertEqual(self.tokens(ports), self.expected_tokens())
        self.pack()  # one for both

    def test_folders_that_cannot_be_used_are_named(self):
        file = self.folder / "file"
        file.write_text("no folder")
        for packs in (file, file / "packs", pathlib.Path("/proc/packs")):
            self.assertIn(str(packs), self.refused("--expert-memory", "25%", "--pack-dir", packs))

    def test_routing_is_recorded_and_replayed_and_answers_say_so(self):
        trace = self.folder / "trace"
        server, ports = self.start("--record-routing", trace)
        self.assertEqual(self.tokens(ports), self.expected_tokens())
        self.assertFalse(json.loads(self.cli(ports, "info", "--json").stdout)["routing_replayed"])
        self.assertNotIn("moesaic-routing", self.metadata(ports))
        self.stop(server)

        server, ports = self.tiered("25%", "--replay-routing", trace, "--replay-prefetch-layers", "1")
        self.assertTrue(json.loads(self.cli(ports, "info", "--json").stdout)["routing_replayed"])
        self.assertIn("answers are not the model's", self.cli(ports, "info").stdout)
        self.assertEqual(self.metadata(ports)["moesaic-routing"], "replayed")
        self.stop(server)

        cut = self.folder / "cut"
        cut.write_bytes(trace.read_bytes()[:-3])
        garbage = self.folder / "garbage"
        garbage.write_bytes(bytes(range(256)) * 8)
        for bad in (cut, garbage, self.folder / "absent"):
            self.assertIn(str(bad), self.refused("--replay-routing", bad))

    @staticmethod
    def metadata(ports):
        """What an answer of Generate says before its first token."""
        with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
            call = channel.unary_stream("/moesaic.v1.Inference/Generate")(b"\x1a\x06violin", timeout=60)
            metadata = dict(call.initial_metadata())
            list(call)
            return metadata


def main():
    global ARGUMENTS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-binary", required=True)
    parser.add_argument("--model", required=True)
    ARGUMENTS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)


if __name__ == "__main__":
    main()
