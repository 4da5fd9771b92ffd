"""The peers, each in a process of its own that sleeps between slices: llama.cpp and transformers.

A worker loads its model, then answers commands on its standard input, one JSON object a line:
    {"do": "prefill", "prompts": [[ids]]}           -> {"seconds": s}, the first prompt's logits being ready
    {"do": "start", "prompts": [[ids], ...]}        -> prefills one stream per prompt (not timed)
    {"do": "decode", "steps": n}                    -> {"seconds": s} for n greedy steps of all streams
"""

import ctypes
import json
import pathlib
import subprocess
import sys
import time


class Worker:
    """The driver's side of a worker."""

    def __init__(self, kind: str, model: pathlib.Path, threads: int, max_streams: int, context: int, join=None):
        """`context`: tokens of a stream at most. `join` puts the process into a control group."""
        self.process = subprocess.Popen(
            [sys.executable, __file__, kind, str(model), str(threads), str(max_streams), str(context)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=join)
        self._read()

    def _read(self) -> dict:
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"peer ended with status {self.process.wait()}")
            if line.startswith("{"):
                return json.loads(line)

    def ask(self, **command) -> dict:
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class LlamaCpp:
    """llama.cpp's C interface: one context, a sequence per stream."""

    def __init__(self, model: str, threads: int, max_streams: int, context_tokens: int):
        import llama_cpp
        self.api = llama_cpp
        self.silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.silence, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), parameters)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {model}")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = context_tokens * max_streams
        context.n_batch = 2048
        context.n_ubatch = 512
        context.n_seq_max = max_streams
        context.n_threads = threads
        context.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(2048, 0, 1)
        self.lengths, self.next = [], []

    def _clear(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def _run(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Rows are (token, position, sequence, wants logits)."""
        self.batch.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            self.batch.token[i] = token
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = logits
        if self.api.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama_decode failed")

    def _argmax(self, row: int) -> int:
        import numpy as np
        logits = self.api.llama_get_logits_ith(self.context, row)
        return int(np.ctypeslib.as_array(logits, shape=(self.vocabulary,)).argmax())

    def prefill(self, prompt: list[int]) -> float:
        self._clear()
        begin = time.perf_counter()
        self._run([(token, i, 0, i + 1 == len(prompt)) for i, token in enumerate(prompt)])
        self._argmax(len(prompt) - 1)
        return time.perf_counter() - begin

    def start(self, prompts: list[list[int]]) -> None:
        self._clear()
        self.lengths, self.next = [], []
        for sequence, prompt in enumerate(prompts):
            self._run([(token, i, sequence, i + 1 == len(prompt)) for i, token in enumerate(prompt)])
            self.lengths.append(len(prompt))
            self.next.append(self._argmax(len(prompt) - 1))

    def decode(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            self._run([(token, self.lengths[s], s, True) for s, token in enumerate(self.next)])
            self.next = [self._argmax(s) for s in range(len(self.next))]
            self.lengths = [length + 1 for length in self.lengths]
        return time.perf_counter() - begin


class Transformers:
    """transformers' own forward pass with its cache, in bfloat16."""

    def __init__(self, model: str, threads: int, max_streams: int, context_tokens: int):
        import torch
        from transformers import AutoModelForCausalLM
        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
        self.cache, self.next = None, None

    def prefill(self, prompt: list[int]) -> float:
        ids = self.torch.tensor([prompt])
        begin = time.perf_counter()
        self.model(input_ids=ids, use_cache=True, logits_to_keep=1).logits.argmax().item()
        return time.perf_counter() - begin

    def start(self, prompts: list[list[int]]) -> None:
        output = self.model(input_ids=self.torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        self.cache, self.next = output.past_key_values, output.logits[:, -1].argmax(-1, keepdim=True)

    def decode(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            output = self.model(input_ids=self.next, past_key_values=self.cache, use_cache=True)
            self.cache, self.next = output.past_key_values, output.logits[:, -1].argmax(-1, keepdim=True)
        return time.perf_counter() - begin


def serve_commands(kind: str, model: str, threads: int, max_streams: int, context: int) -> None:
    peer = {"llama.cpp": LlamaCpp, "transformers": Transformers}[kind](model, threads, max_streams, context)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer = {}
        if command["do"] == "prefill":
            answer["seconds"] = peer.prefill(command["prompts"][0])
        elif command["do"] == "start":
            peer.start(command["prompts"])
        else:
            answer["seconds"] = peer.decode(command["steps"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve_commands(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
