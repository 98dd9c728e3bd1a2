"""A loop like nanoGPT's: groups that decay and not, a warmup and a cosine, gathered gradients, clipping, an average."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fallline as fl
from needed import need
from of_frameworks import assert_alike
from of_torch import bytes_of, through_a_file

STEPS, CLIP, RATE, DECAY, BETAS = 12, 1.0, 1e-2, 0.1, (0.9, 0.95)


def gpt(size=24, heads=2, letters=17, length=12):
    """A small GPT whose head shares the embedding's weights."""
    torch = need("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.behind = nn.LayerNorm(size), nn.LayerNorm(size)
            self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
            self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

        def forward(self, x):
            q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2)
                       for part in self.qkv(self.before(x)).split(size, dim=-1))
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).flatten(2))
            return x + self.mlp(self.behind(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.letter, self.place = nn.Embedding(letters, size), nn.Embedding(length, size)
            self.blocks, self.norm = nn.Sequential(Block(), Block()), nn.LayerNorm(size)
            self.head = nn.Linear(size, letters, bias=False)
            self.head.weight = self.letter.weight
            self.apply(lambda part: hasattr(part, "weight") and part.weight.ndim == 2 and nn.init.normal_(
                part.weight, std=0.02))

        def forward(self, x):
            x = x[:, :-1]
            return self.head(self.norm(self.blocks(self.letter(x) + self.place(torch.arange(x.shape[1])))))

    torch.manual_seed(0)
    return GPT()


def rate(step):
    """nanoGPT's: up in 3 steps, then along a cosine to a tenth."""
    return RATE * ((step + 1) / 4 if step < 3 else 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 3) / (STEPS - 3))))


def batch(k, letters=17, length=12):
    """Rows of letters, each the third after the one before it."""
    torch = need("torch")
    start = torch.randint(letters, (4, 1), generator=torch.Generator().manual_seed(k))
    return (start + 3 * torch.arange(length + 1)) % letters


def groups(model, key):
    params = list(model.parameters())
    return [{"params": [p for p in params if p.ndim >= 2], key: DECAY},
            {"params": [p for p in params if p.ndim < 2], key: 0.0}]  # fmt: skip


def theirs(model):
    return need("torch").optim.AdamW(groups(model, "weight_decay"), lr=RATE, betas=BETAS)


def ours(model):
    return fl.torch.AdamW(groups(model, "weight_decay"), lr=RATE, betas=BETAS)


def chain(model):
    """One that clips by itself."""
    return fl.torch.Optimizer(groups(model, "rate"), fl.chain(
        fl.clip_norm(CLIP), fl.dialects.torch.AdamW(RATE, betas=BETAS, weight_decay=DECAY)))


WAYS = {"torch's formula": (ours, CLIP), "a chain": (chain, None)}
every_way = pytest.mark.parametrize(("make", "clip"), WAYS.values(), ids=WAYS)


class Run:
    """A run that can be saved and go on."""

    def __init__(self, make, clip, narrow=False):
        torch = need("torch")
        self.model, self.clip, self.narrow, self.losses = gpt(), clip, narrow, []
        self.opt = make(self.model)
        self.mean = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))

    def train(self, steps):
        torch = need("torch")
        for step in steps:
            for group in self.opt.param_groups:
                group["lr"] = rate(step)
            for part in range(2):
                x = batch(2 * step + part)
                with torch.autocast("cpu", torch.bfloat16, enabled=self.narrow):
                    loss = torch.nn.functional.cross_entropy(self.model(x).flatten(0, 1), x[:, 1:].flatten()) / 2
                loss.backward()
                self.losses.append(loss.item())
            if self.clip:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.opt.step()
            self.opt.zero_grad(set_to_none=True)
            self.mean.update_parameters(self.model)
        return self

    def parts(self):
        return self.model, self.opt, self.mean


@every_way
def test_losses_are_those_of_torchs_optimizer(make, clip):
    expected = Run(theirs, CLIP).train(range(STEPS)).losses
    assert expected[-1] < 0.9 * expected[0]
    assert_alike(Run(make, clip).train(range(STEPS)).losses, expected)


@every_way
def test_losses_under_autocast_are_those_of_torchs_optimizer_but_for_a_rounding_to_bfloat16(make, clip):
    """An ulp of a parameter may turn the rounding of a number, which is by 2⁻⁹ of it."""
    expected = Run(theirs, CLIP, narrow=True).train(range(STEPS)).losses
    np.testing.assert_allclose(Run(make, clip, narrow=True).train(range(STEPS)).losses, expected, rtol=2.0**-9)


@every_way
@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16 by autocast"])
def test_a_run_that_goes_on_from_a_file_has_the_bits_of_one_that_never_stopped(make, clip, narrow):
    straight, resumed = Run(make, clip, narrow).train(range(STEPS)), Run(make, clip, narrow)
    states = through_a_file(*(part.state_dict() for part in Run(make, clip, narrow).train(range(5)).parts()))
    for part, state in zip(resumed.parts(), states):
        part.load_state_dict(state)
    assert resumed.train(range(5, STEPS)).losses == straight.losses[10:]
    assert bytes_of(resumed.model) == bytes_of(straight.model)
    assert bytes_of(resumed.mean) == bytes_of(straight.mean)
