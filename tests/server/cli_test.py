#!/usr/bin/env python3
"""moesaic-server and moesaic-cli as processes: what a newcomer types, signals, exit statuses.

  tests/server/cli_test.py --server-binary build/bin/moesaic-server --model models/wordnet-moe
"""

import argparse
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

ARGUMENTS = None
START_SECONDS = 120


class ProcessTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self, *flags, model=None, wait=True):
        """A server on free ports, and the ports once it serves."""
        ports = self.folder / "ports"
        command = [ARGUMENTS.server_binary, f"--model={model or ARGUMENTS.model}", *flags]
        for flag, value in (("--grpc-port", "0"), ("--metrics-port", "0"), ("--port-file", str(ports))):
            if flag not in flags:
                command += [flag, value]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, server)
        if not wait:
            return server
        deadline = time.monotonic() + START_SECONDS
        while not ports.exists():
            self.assertIsNone(server.poll(), "the server ended")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        self.ports = dict(line.split("=") for line in ports.read_text().split())
        return server

    @staticmethod
    def end(server):
        if server.poll() is None:
            server.kill()
        server.communicate()

    def cli(self, *arguments, stdin=None):
        binary = pathlib.Path(ARGUMENTS.server_binary).parent / "moesaic-cli"
        command, *rest = arguments
        address = [] if "--address" in rest else ["--address", f"127.0.0.1:{self.ports['grpc']}"]
        return subprocess.run([binary, command, *address, *rest], input=stdin, capture_output=True, text=True,
                              timeout=120)

    def test_a_newcomers_session(self):
        server = self.start()
        answer = self.cli("generate", "--temperature", "0", "--stats", "violin")
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertTrue(answer.stdout.strip())
        self.assertIn("tokens/s", answer.stderr)
        self.assertEqual(self.cli("generate", "--temperature", "0", stdin="violin\n").stdout, answer.stdout)

        lines = self.cli("generate", "--temperature", "0", "--json", "violin").stdout.splitlines()
        messages = [json.loads(line) for line in lines]
        self.assertEqual("".join(message["text"] for message in messages).strip(), answer.stdout.strip())
        self.assertIn(messages[-1]["finish_reason"], ("stop", "length"))

        tokens = json.loads(self.cli("tokenize", "--json", "violin").stdout)
        ids = ",".join(map(str, tokens["ids"]))
        by_ids = self.cli("generate", "--temperature", "0", "--ids", ids).stdout.split()
        self.assertEqual([int(token) for token in by_ids],
                         [token for message in messages for token in message["token_ids"]])

        info = json.loads(self.cli("info", "--json").stdout)
        self.assertEqual(info["model"], pathlib.Path(ARGUMENTS.model).resolve().name)
        self.assertEqual(info["load"]["kv_blocks_used"], 0)
        self.assertEqual(self.cli("health").stdout, "SERVING\n")

        check = subprocess.run([ARGUMENTS.server_binary, "--healthcheck", "--grpc-port", self.ports["grpc"]],
                               capture_output=True, text=True)
        self.assertEqual((check.returncode, check.stdout), (0, "SERVING\n"))
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/metrics") as page:
            metrics = page.read().decode()
        for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_hits_total",
                     "time_to_first_token_seconds_bucket", "inter_token_latency_seconds_bucket",
                     "request_success_total"):
            self.assertIn(name, metrics)

        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=60)
        self.assertEqual(server.returncode, 0, log)
        self.assertIn("status=OK", log)
        self.assertNotIn("violin", log)  # prompts are never logged
        gone = self.cli("health")
        self.assertEqual(gone.returncode, 1)
        self.assertIn("Is a server running", gone.stderr)

    def test_a_running_request_survives_sigterm(self):
        server = self.start("--drain-timeout", "600")
        binary = pathlib.Path(ARGUMENTS.server_binary).parent / "moesaic-cli"
        client = subprocess.Popen([binary, "generate", "--address", f"127.0.0.1:{self.ports['grpc']}", "--ignore-eos",
                                   "--max-tokens", "200", "--json", "violin"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        first = client.stdout.readline()
        server.send_signal(signal.SIGTERM)
        rest, error = client.communicate(timeout=120)
        self.assertEqual(client.returncode, 0, error)
        messages = [json.loads(line) for line in (first + rest).splitlines()]
        self.assertEqual(sum(len(message["token_ids"]) for message in messages), 200)
        server.communicate(timeout=60)
        self.assertEqual(server.returncode, 0)

    def test_wrong_usage(self):
        self.start()
        for arguments, words in ((("generate", "--max-tokens", "-1", "x"), "max_tokens"),
                                 (("generate", "--max-tokens", "100000", "x"), "max_tokens"),
                                 (("generate", "--ids", "1,2,nothing"), "token id"),
                                 (("generate", "--ids", "1,,2"), "token id is missing"),
                                 (("info", "--address", ""), "--address is empty"),
                                 (("generate", "--ids", "99999999"), "99999999"),
                                 (("generate", "--model", "other", "x"), "other")):
            answer = self.cli(*arguments)
            self.assertNotEqual(answer.returncode, 0)
            self.assertIn(words, answer.stderr)

    def test_token_ids_only_without_a_tokenizer(self):
        model = self.folder / "ids-only"
        model.mkdir()
        for name in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copy(pathlib.Path(ARGUMENTS.model) / name, model)
        self.start(model=model)
        answer = self.cli("generate", "--ids", "1,2,3", "--max-tokens", "5", "--ignore-eos")
        self.assertEqual(len(answer.stdout.split()), 5, answer.stderr)
        answer = self.cli("generate", "violin")
        self.assertEqual(answer.returncode, 1)
        self.assertIn("token ids", answer.stderr)
        self.assertIn("token ids only", self.cli("info").stdout)

    def test_bad_models_and_flags_are_explained(self):
        for damage, words in (({"config.json": "{"}, "config.json"),
                              ({"config.json": '{"architectures": ["Strange"]}'}, "Strange"),
                              ({"model.safetensors": "short"}, "model.safetensors"),
                              ({"generation_config.json": '{"temperature": "hot"}'}, "temperature"),
                              ({"tokenizer.json": "{}"}, "tokenizer.json")):
            with self.subTest(damage=list(damage)):
                model = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
                for file in pathlib.Path(ARGUMENTS.model).iterdir():
                    if file.name not in damage:
                        shutil.copy(file, model)
                for name, text in damage.items():
                    (model / name).write_text(text)
                server = self.start(model=model, wait=False)
                _, log = server.communicate(timeout=START_SECONDS)
                self.assertEqual(server.returncode, 1, log)
                self.assertIn(words, log)
        server = self.start(model="/nonexistent", wait=False)
        self.assertIn("/nonexistent", server.communicate(timeout=START_SECONDS)[1])
        for flags, words in ((["--device", "cuda:0"], "no CUDA backend"),
                             (["--kv-memory", "much"], "--kv-memory"),
                             (["--kv-memory", "1KiB"], "--kv-memory"),
                             (["--bind", "nowhere.invalid"], "nowhere.invalid"),
                             (["--bind", "192.0.2.1"], "192.0.2.1"),
                             (["--port-file", "/no-such-folder/ports"], "/no-such-folder/ports"),
                             (["--max-batch-tokens", "1"], "--max-batch-tokens")):
            server = self.start(*flags, wait=False)
            _, log = server.communicate(timeout=START_SECONDS)
            self.assertNotEqual(server.returncode, 0)
            self.assertIn(words, log)
            self.assertNotIn("packing weights", log)

    def test_listening_is_said_only_when_it_is_true(self):
        self.start()
        for taken in ("grpc", "metrics"):
            server = self.start(f"--{taken}-port", self.ports[taken], wait=False)
            _, log = server.communicate(timeout=START_SECONDS)
            self.assertEqual(server.returncode, 1, log)
            self.assertIn(f"--{taken}-port", log)
            self.assertIn("in use", log)
            self.assertNotIn("listening", log)

    def test_sigterm_while_loading(self):
        model = self.folder / "slow"
        model.mkdir()
        config = json.loads((pathlib.Path(ARGUMENTS.model) / "config.json").read_text())
        config.update(num_hidden_layers=100)  # 25 times the work
        (model / "config.json").write_text(json.dumps(config))
        server = self.start("--load-format", "dummy", model=model, wait=False)
        log = ""
        while "listening" not in log:
            line = server.stderr.readline()
            self.assertTrue(line, log)
            log += line
        server.send_signal(signal.SIGTERM)
        log += server.communicate(timeout=60)[1]
        self.assertEqual(server.returncode, 0, log)
        self.assertIn("while loading", log)
        self.assertNotIn("shutting down", log)

    def test_logs_in_json(self):
        server = self.start("--log-format", "json")
        self.cli("generate", "--max-tokens", "2", "violin")
        server.send_signal(signal.SIGINT)
        _, log = server.communicate(timeout=60)
        records = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        self.assertTrue(any("status=OK" in record["message"] for record in records))


def main():
    global ARGUMENTS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-binary", required=True)
    parser.add_argument("--model", required=True)
    ARGUMENTS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)


if __name__ == "__main__":
    main()
