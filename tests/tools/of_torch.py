"""Networks of torch, and their training beside another optimizer's."""

from __future__ import annotations

import io

from needed import need


def net(seed=0, dtype="float64"):
    """A small network."""
    torch = need("torch")
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).to(getattr(torch, dtype))


def loss_of(model, seed=0):
    """The loss on data of a seed."""
    torch = need("torch")
    make = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    x = torch.randn(32, 5, generator=make, dtype=torch.float64).to(dtype)
    return ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()


def train(model, opt, steps=10, scheduler=None, first=0):
    """Train on a batch for each step; the losses."""
    losses = []
    for k in range(first, first + steps):
        opt.zero_grad()
        loss = loss_of(model, k)
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
        if scheduler is not None:
            scheduler.step()
    return losses


def far(model, other):
    """The largest difference of two models' parameters."""
    return max(float((p - q).detach().abs().max()) for p, q in zip(model.parameters(), other.parameters()))


def bytes_of(model):
    """A model's parameters to the bit."""
    return [p.detach().contiguous().view(need("torch").uint8).numpy().tobytes() for p in model.parameters()]


def through_a_file(*things):
    """What torch.load makes of what torch.save wrote of these, without trusting it."""
    torch = need("torch")
    file = io.BytesIO()
    torch.save(list(things), file)
    file.seek(0)
    return torch.load(file, weights_only=True)
