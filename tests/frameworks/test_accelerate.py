"""Training with Accelerate: what it prepares, accumulates, clips and saves."""

from __future__ import annotations

import pytest

from needed import need
from of_frameworks import ALIKE, CLIP, WAYS, assert_alike, batches, cosine, loss_on, theirs
from of_torch import bytes_of, net

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore", "error:::fallline")]


def run(make, clip, epochs, folder=None):
    """Train in these epochs, each judged at the point to report and then saved, from what a run before has saved; each
    step has the gradients of two batches. The network and its losses."""
    accelerator = need("accelerate").Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, losses = net(dtype="float32"), []
    opt = make(model.parameters())
    model, opt, scheduler, data = accelerator.prepare(model, opt, cosine(opt), batches())
    if epochs[0]:
        accelerator.load_state(folder / str(epochs[0] - 1))
    for epoch in epochs:
        model.train()
        opt.train()
        for (x,) in data:
            with accelerator.accumulate(model):
                loss = loss_on(model, x)
                accelerator.backward(loss)
                if clip and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                opt.step()
                scheduler.step()
                opt.zero_grad()
            losses.append(loss.item())
        model.eval()
        opt.eval()
        if folder:
            accelerator.save_state(folder / str(epoch))
    opt.train()
    return model, losses


@pytest.mark.parametrize(("make", "clip"), ALIKE.values(), ids=ALIKE)
def test_losses_are_those_of_torchs_optimizer(make, clip):
    assert_alike(run(make, clip, range(4))[1], run(theirs, CLIP, range(4))[1])


@pytest.mark.parametrize(("make", "clip"), WAYS.values(), ids=WAYS)
def test_a_run_that_goes_on_from_a_saved_state_has_the_bits_of_one_that_never_stopped(make, clip, tmp_path):
    model, losses = run(make, clip, range(4), tmp_path)
    again, rest = run(make, clip, range(2, 4), tmp_path)
    assert losses[8:] == rest
    assert bytes_of(again) == bytes_of(model)
