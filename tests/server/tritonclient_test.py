#!/usr/bin/env python3
"""The off-the-shelf Triton client against a real server with a real model.

  tests/server/tritonclient_test.py --server-binary build/bin/moesaic-server --model models/wordnet-moe
"""

import argparse
import json
import pathlib
import queue
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

ARGUMENTS = None
START_SECONDS = 120


class Server:
    """A server process on free ports."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        ports = pathlib.Path(self.folder.name) / "ports"
        self.process = subprocess.Popen(
            [ARGUMENTS.server_binary, "--model", ARGUMENTS.model, "--grpc-port", "0", "--metrics-port", "0",
             "--port-file", str(ports), "--max-receive-message", "1MiB"])
        deadline = time.monotonic() + START_SECONDS
        while not ports.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start")
            time.sleep(0.05)
        lines = dict(line.split("=") for line in ports.read_text().split())
        self.address = f"127.0.0.1:{lines['grpc']}"

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=60)
        self.folder.cleanup()
        return code


def text_input(text, name="text_input"):
    tensor = triton.InferInput(name, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() if isinstance(text, str) else text], dtype=np.object_))
    return tensor


def flag(name, value):
    tensor = triton.InferInput(name, [1], "BOOL")
    tensor.set_data_from_numpy(np.array([value]))
    return tensor


def ids_input(ids):
    tensor = triton.InferInput("input_ids", [len(ids)], "INT64")
    tensor.set_data_from_numpy(np.array(ids, dtype=np.int64))
    return tensor


def sampling(**parameters):
    return text_input(json.dumps(parameters), "sampling_parameters")


GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}


class TritonClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.client = triton.InferenceServerClient(cls.server.address)
        cls.model = pathlib.Path(ARGUMENTS.model).resolve().name

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        code = cls.server.stop()
        if code != 0:
            raise AssertionError(f"the server ended with status {code}")

    def stream(self, requests, **options):
        """Sends each request's tensors on one stream; all answers as (result, error) until the streams ends."""
        answers = queue.Queue()
        client = triton.InferenceServerClient(self.server.address)
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for number, inputs in enumerate(requests):
            client.async_stream_infer(self.model, inputs, request_id=str(number), **options)
        client.stop_stream()
        client.close()
        return list(answers.queue)

    def test_health_and_descriptions(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready(self.model))
        self.assertFalse(self.client.is_model_ready("other"))
        self.assertIn("statistics", self.client.get_server_metadata().extensions)
        metadata = self.client.get_model_metadata(self.model)
        self.assertEqual(metadata.name, self.model)
        self.assertIn("text_input", [tensor.name for tensor in metadata.inputs])
        config = self.client.get_model_config(self.model, as_json=True)["config"]
        self.assertTrue(config["model_transaction_policy"]["decoupled"])
        self.assertEqual([tensor.name for tensor in metadata.outputs], [tensor["name"] for tensor in config["output"]])
        index = self.client.get_model_repository_index()
        self.assertEqual([(model.name, model.state) for model in index.models], [(self.model, "READY")])

    def test_unary(self):
        result = self.client.infer(self.model, [text_input("violin"), sampling(**GREEDY, logprobs=0)], request_id="u1")
        self.assertEqual(result.get_response().id, "u1")
        self.assertEqual(result.as_numpy("output_ids").shape, (12,))
        self.assertEqual(result.as_numpy("output_ids").dtype, np.int64)
        self.assertEqual(result.as_numpy("logprobs").shape, (12,))
        self.assertTrue((result.as_numpy("logprobs") <= 0).all())
        self.assertEqual(result.as_numpy("finish_reason")[0], b"length")
        self.assertTrue(result.as_numpy("text_output")[0].decode())

    def test_statistics_count(self):
        def successes():
            return self.client.get_inference_statistics(self.model).model_stats[0].inference_stats.success.count
        before = successes()
        self.client.infer(self.model, [text_input("violin"), sampling(**GREEDY)])
        self.assertEqual(successes(), before + 1)

    def test_ids_continue_text(self):
        text = self.client.infer(self.model, [text_input("violin"), sampling(**GREEDY)])
        ids = text.as_numpy("output_ids").tolist()
        wanted = [triton.InferRequestedOutput("output_ids")]
        again = self.client.infer(self.model, [ids_input(ids), sampling(**GREEDY)], outputs=wanted)
        self.assertEqual(again.as_numpy("output_ids").shape, (12,))
        self.assertIsNone(again.as_numpy("text_output"))

    def test_streaming_equals_unary(self):
        whole = self.client.infer(self.model, [text_input("violin"), sampling(**GREEDY)])
        answers = self.stream([[text_input("violin"), flag("stream", True), sampling(**GREEDY)]])
        self.assertTrue(all(error is None for _, error in answers))
        ids = np.concatenate([result.as_numpy("output_ids") for result, _ in answers])
        text = b"".join(result.as_numpy("text_output")[0] for result, _ in answers)
        self.assertEqual(ids.tolist(), whole.as_numpy("output_ids").tolist())
        self.assertEqual(text, whole.as_numpy("text_output")[0])
        finals = [result.get_response().parameters["triton_final_response"].bool_param for result, _ in answers]
        self.assertEqual(finals, [False] * (len(answers) - 1) + [True])

    def test_empty_final_response(self):
        answers = self.stream([[text_input("violin"), flag("stream", True), sampling(**GREEDY)]],
                              enable_empty_final_response=True)
        last = answers[-1][0].get_response()
        self.assertTrue(last.parameters["triton_final_response"].bool_param)
        self.assertEqual(len(last.outputs), 0)

    def test_requests_share_a_stream(self):
        answers = self.stream([[text_input(word), flag("stream", True), sampling(**GREEDY)]
                               for word in ("violin", "river", "king")])
        by_request = {}
        for result, error in answers:
            self.assertIsNone(error)
            by_request.setdefault(result.get_response().id, []).append(result)
        self.assertEqual(sorted(by_request), ["0", "1", "2"])
        for results in by_request.values():
            self.assertEqual(sum(len(result.as_numpy("output_ids")) for result in results), 12)

    def test_seeds_repeat(self):
        def sample(seed):
            parameters = sampling(max_tokens=24, seed=seed, temperature=1.0, top_k=0, top_p=1.0, ignore_eos=True)
            return self.client.infer(self.model, [text_input("violin"), parameters]).as_numpy("output_ids").tolist()
        self.assertEqual(sample(7), sample(7))
        self.assertNotEqual(sample(7), sample(8))

    def assert_refused(self, inputs, status, text, **options):
        with self.assertRaises(InferenceServerException) as caught:
            self.client.infer(options.pop("model", self.model), inputs, **options)
        self.assertEqual(caught.exception.status(), f"StatusCode.{status}")
        self.assertIn(text, caught.exception.message())

    def test_bad_input(self):
        self.assert_refused([text_input(b"abc\xff")], "INVALID_ARGUMENT", "text_input")
        self.assert_refused([text_input(b"abc\xff")], "INVALID_ARGUMENT", "byte offset 3")
        self.assert_refused([text_input("a"), sampling(max_tokens=-1)], "INVALID_ARGUMENT", "max_tokens")
        self.assert_refused([text_input("a"), sampling(max_tokens=10 ** 9)], "INVALID_ARGUMENT", "max_tokens")
        self.assert_refused([text_input("a"), sampling(temperature=-1)], "INVALID_ARGUMENT", "temperature")
        self.assert_refused([text_input("a"), sampling(tempreature=1)], "INVALID_ARGUMENT", "tempreature")
        self.assert_refused([text_input("a"), text_input("{", "sampling_parameters")], "INVALID_ARGUMENT",
                            "sampling_parameters")
        self.assert_refused([ids_input([1, 10 ** 6])], "INVALID_ARGUMENT", "1000000")
        self.assert_refused([ids_input([-1])], "INVALID_ARGUMENT", "input_ids")
        self.assert_refused([text_input("word " * 5000)], "INVALID_ARGUMENT", "tokens")
        self.assert_refused([text_input("a")], "NOT_FOUND", "other", model="other")
        self.assert_refused([text_input("a" * (2 << 20))], "RESOURCE_EXHAUSTED", "larger than max")
        self.assert_refused([text_input("a"), flag("stream", True)], "INVALID_ARGUMENT", "ModelStreamInfer")
        self.assertTrue(self.client.is_server_ready())

    def test_a_stream_survives_an_error(self):
        answers = self.stream([[text_input(b"\xff"), flag("stream", True)],
                               [text_input("violin"), flag("stream", True), sampling(**GREEDY)]])
        errors = [error for _, error in answers if error is not None]
        self.assertEqual(len(errors), 1)
        self.assertIn("byte offset 0", errors[0].message())
        self.assertEqual(sum(len(result.as_numpy("output_ids")) for result, error in answers if error is None), 12)

    def test_what_is_not_offered(self):
        with self.assertRaises(InferenceServerException) as caught:
            self.client.load_model(self.model)
        self.assertEqual(caught.exception.status(), "StatusCode.UNIMPLEMENTED")
        with self.assertRaises(InferenceServerException) as caught:
            self.client.register_system_shared_memory("region", "/key", 16)
        self.assertEqual(caught.exception.status(), "StatusCode.UNIMPLEMENTED")
        self.assertEqual(len(self.client.get_system_shared_memory_status().regions), 0)


def main():
    global ARGUMENTS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-binary", required=True)
    parser.add_argument("--model", required=True)
    ARGUMENTS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)


if __name__ == "__main__":
    main()
