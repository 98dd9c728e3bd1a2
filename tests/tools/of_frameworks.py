"""What frameworks train in tests: optimizers, and a small network on batches that come round."""

from __future__ import annotations

import numpy as np

import fallline as fl
from needed import need
from of_torch import net

RATE, DECAY, CLIP = 1e-2, 0.1, 0.5


def theirs(params):
    """torch's own."""
    return need("torch").optim.AdamW(params, lr=RATE, weight_decay=DECAY)


# With the norm that the framework is to clip to, where the optimizer does not.
ALIKE = {
    "torch's formula": (lambda params: fl.torch.AdamW(params, lr=RATE, weight_decay=DECAY), CLIP),
    "a chain": (lambda params: fl.torch.Optimizer(
        params, fl.chain(fl.clip_norm(CLIP), fl.dialects.torch.AdamW(RATE, weight_decay=DECAY))), None),
}  # fmt: skip


def free(params):
    """A chain that has a point to report apart from the parameters that are stepped."""
    return fl.torch.Optimizer(params, fl.chain(fl.clip_norm(CLIP), fl.ScheduleFreeAdamW(RATE)))


WAYS = {**ALIKE, "Schedule-Free": (free, None)}


def cosine(opt, steps=16):
    return need("torch").optim.lr_scheduler.CosineAnnealingLR(opt, steps)


def batches():
    """Four of eight rows each, in order."""
    torch = need("torch")
    x = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=8)


def loss_on(model, x):
    return ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()


def plainly(make, clip, epochs=4):
    """The network and its losses after a loop without a framework."""
    torch, model, losses = need("torch"), net(dtype="float32"), []
    opt = make(model.parameters())
    scheduler = cosine(opt)
    for _ in range(epochs):
        for (x,) in batches():
            opt.zero_grad()
            loss = loss_on(model, x)
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()
            scheduler.step()
            losses.append(loss.item())
    return model, losses


def assert_alike(losses, expected):
    """Each step rounds numbers of float32, by 2⁻²⁴ of them, a few times: losses are the same at first, and the n-th
    after that within 8n·2⁻²⁴ of it."""
    assert len(losses) == len(expected) > 1
    far = np.abs(np.array(losses) / np.array(expected) - 1)
    assert (far <= 8 * 2.0**-24 * np.arange(len(losses))).all(), far
