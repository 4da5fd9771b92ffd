"""The demo model laid out for fast training, and its optimizers, for train_demo.py."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

IGNORE = -100  # a target that is not scored


@dataclass
class Shape:
    """The shape of the model, in the terms of the Qwen3-MoE configuration."""

    vocab: int = 4096
    hidden: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    experts: int = 16
    top_k: int = 2
    expert_hidden: int = 96
    positions: int = 512
    rope_theta: float = 10000.0
    eps: float = 1e-6


class Dispatch(torch.autograd.Function):
    """Gathers rows by `source`; the gradient is a gather by `slot`, no slower scatter."""

    @staticmethod
    def forward(ctx, x, source, slot):
        ctx.save_for_backward(slot)
        return x.index_select(0, source)

    @staticmethod
    def backward(ctx, grad):
        (slot,) = ctx.saved_tensors
        return grad.index_select(0, slot), None, None


class Combine(torch.autograd.Function):
    """Undoes Dispatch: gathers rows by `slot` and drops the padding rows."""

    @staticmethod
    def forward(ctx, x, source, slot, padding):
        ctx.save_for_backward(source, padding)
        return x.index_select(0, slot)

    @staticmethod
    def backward(ctx, grad):
        source, padding = ctx.saved_tensors
        return grad.index_select(0, source).index_fill_(0, padding, 0), None, None, None


class Attention(nn.Module):
    """Grouped-query attention with per-head RMS norms and rotary positions."""

    def __init__(self, s):
        super().__init__()
        self.s = s
        self.sizes = [s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim]
        self.qkv = nn.Parameter(torch.empty(sum(self.sizes), s.hidden))
        self.out = nn.Parameter(torch.empty(s.hidden, s.heads * s.head_dim))
        self.q_norm = nn.Parameter(torch.ones(s.head_dim))
        self.k_norm = nn.Parameter(torch.ones(s.head_dim))

    def forward(self, x, cos, sin):
        s, (batch, length, _) = self.s, x.shape
        q, k, v = F.linear(x, self.qkv).split(self.sizes, -1)
        q, k, v = (t.unflatten(-1, (-1, s.head_dim)) for t in (q, k, v))
        q = rotate(F.rms_norm(q, (s.head_dim,), self.q_norm, s.eps), cos, sin)
        k = rotate(F.rms_norm(k, (s.head_dim,), self.k_norm, s.eps), cos, sin)
        share = s.heads // s.kv_heads
        k, v = k.repeat_interleave(share, 2), v.repeat_interleave(share, 2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        return F.linear(mixed.transpose(1, 2).reshape(batch, length, -1), self.out)


def rotate(x, cos, sin):
    """Applies rotary positions to (batch, length, heads, head_dim)."""
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


def expert_layout(flat, counts, block=64):
    """Lays rows out by expert, each expert's part padded to whole blocks.

    Padding keeps the matrix shapes few: the CPU library prepares a kernel for each
    new shape, which takes longer than these products do. Returns the row that each
    slot holds, the slot of each row, the padding slots and the sizes of the parts.
    """
    padded = (counts + block - 1) // block * block
    order = flat.argsort(stable=True)
    shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
    slots = torch.arange(flat.numel(), device=flat.device) + shift[flat[order]]
    sizes = padded.tolist()
    source = torch.zeros(sum(sizes), dtype=torch.long, device=flat.device)
    source[slots] = order
    slot = torch.empty_like(order)
    slot[order] = slots
    is_padding = torch.ones_like(source, dtype=torch.bool)
    is_padding[slots] = False
    return source, slot, is_padding.nonzero().flatten(), sizes


class Experts(nn.Module):
    """The router and the experts; returns the output and the balancing loss."""

    def __init__(self, s):
        super().__init__()
        self.s = s
        self.router = nn.Parameter(torch.empty(s.experts, s.hidden))
        self.gate_up = nn.Parameter(torch.empty(s.experts, 2 * s.expert_hidden, s.hidden))
        self.down = nn.Parameter(torch.empty(s.experts, s.hidden, s.expert_hidden))

    def forward(self, x):
        s, tokens = self.s, x.shape[0]
        with torch.autocast(x.device.type, enabled=False):
            probs = F.linear(x.float(), self.router).softmax(-1)
        weights, chosen = probs.topk(s.top_k, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        flat = chosen.flatten()
        counts = torch.bincount(flat, minlength=s.experts)
        source, slot, padding, sizes = expert_layout(flat, counts)
        rows = x.unsqueeze(1).expand(-1, s.top_k, -1).reshape(tokens * s.top_k, s.hidden)
        parts = Dispatch.apply(rows, source, slot).split(sizes)
        outs = []
        for part, gate_up, down in zip(parts, self.gate_up.unbind(0), self.down.unbind(0)):
            gate, up = F.linear(part, gate_up).chunk(2, -1)
            outs.append(F.linear(F.silu(gate) * up, down))
        rows = Combine.apply(torch.cat(outs), source, slot, padding).view(tokens, s.top_k, s.hidden)
        mixed = (rows * weights.unsqueeze(-1)).sum(1)
        share = counts / flat.numel()
        return mixed, s.experts * (share * probs.mean(0)).sum()


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, s):
        super().__init__()
        self.s = s
        self.attention_norm = nn.Parameter(torch.ones(s.hidden))
        self.attention = Attention(s)
        self.experts_norm = nn.Parameter(torch.ones(s.hidden))
        self.experts = Experts(s)

    def forward(self, x, cos, sin):
        s = self.s
        x = x + self.attention(F.rms_norm(x, (s.hidden,), self.attention_norm, s.eps), cos, sin)
        normed = F.rms_norm(x, (s.hidden,), self.experts_norm, s.eps)
        mixed, balance = self.experts(normed.view(-1, s.hidden))
        return x + mixed.view_as(x), balance


class DemoModel(nn.Module):
    """The Qwen3-MoE arithmetic, laid out for fast training."""

    def __init__(self, s):
        super().__init__()
        self.s = s
        self.embed = nn.Parameter(torch.empty(s.vocab, s.hidden))
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm = nn.Parameter(torch.ones(s.hidden))
        for name, p in self.named_parameters():
            if p.dim() > 1:
                scale = 0.02 if name.endswith(("embed", "router")) else p.shape[-1] ** -0.5
                if name.endswith(("out", "down")):
                    scale /= math.sqrt(2 * s.layers)
                nn.init.normal_(p, std=scale)
        angles = torch.arange(s.positions)[:, None] * s.rope_theta ** (
            -torch.arange(0, s.head_dim, 2) / s.head_dim
        )
        self.register_buffer("cos", angles.cos()[:, None], persistent=False)
        self.register_buffer("sin", angles.sin()[:, None], persistent=False)

    def forward(self, ids, targets):
        """Returns the mean loss of the targets and the mean balancing loss."""
        s, length = self.s, ids.shape[1]
        x = F.embedding(ids, self.embed)
        balance = 0.0
        for layer in self.layers:
            x, one = layer(x, self.cos[:length], self.sin[:length])
            balance = balance + one
        x = F.rms_norm(x, (s.hidden,), self.norm, s.eps)
        logits = F.linear(x.view(-1, s.hidden), self.embed)
        loss = F.cross_entropy(logits.float(), targets.reshape(-1), ignore_index=IGNORE)
        return loss, balance / s.layers


class Muon:
    """Momentum whose updates are made orthogonal by Newton-Schulz steps.

    Follows Keller Jordan's Muon with the update scale of Liu et al., "Muon is
    Scalable for LLM Training" (2025). Each parameter is a stack of matrices: one
    for each expert's projection and one for each attention head.
    """

    def __init__(self, parameters, momentum=0.95, decay=0.1):
        self.parameters = parameters  # [(parameter, rows of one matrix)]
        self.buffers = [torch.zeros_like(p) for p, _ in parameters]
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, rate):
        """Updates the parameters from their gradients."""
        groups = {}
        for (p, rows), buffer in zip(self.parameters, self.buffers):
            buffer.mul_(self.momentum).add_(p.grad)
            update = p.grad.add(buffer, alpha=self.momentum).view(-1, rows, p.shape[-1])
            flip = rows > p.shape[-1]
            update = update.transpose(1, 2) if flip else update
            groups.setdefault(update.shape[1:], []).append((p, update, flip))
        for shape, members in groups.items():
            whole = orthogonalize(torch.cat([update for _, update, _ in members]))
            parts = whole.split([len(update) for _, update, _ in members])
            for (p, _, flip), part in zip(members, parts):
                part = part.transpose(1, 2) if flip else part
                p.mul_(1 - rate * self.decay)
                p.add_(part.reshape(p.shape), alpha=-rate * 0.2 * max(shape) ** 0.5)


def orthogonalize(matrices):
    """Brings the singular values of each (rows <= columns) matrix near one."""
    x = matrices.to(torch.bfloat16)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return x.float()


def make_optimizers(model):
    """Muon for the matrices of the layers, AdamW for the rest."""
    rows = {"qkv": model.s.head_dim, "out": model.s.hidden}
    rows |= {"gate_up": model.s.expert_hidden, "down": model.s.hidden}
    matrices, rest = [], []
    for name, p in model.named_parameters():
        size = rows.get(name.rsplit(".", 1)[-1])
        if size:
            matrices.append((p, size))
        else:
            rest.append(p)
    adam = torch.optim.AdamW(rest, betas=(0.9, 0.97), eps=1e-10, weight_decay=0.0, fused=True)
    return Muon(matrices), adam
