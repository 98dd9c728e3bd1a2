"""Training in Lightning, by its loop and by one's own, and its checkpoints."""

from __future__ import annotations

import pytest

from needed import need
from of_frameworks import ALIKE, CLIP, WAYS, assert_alike, batches, cosine, loss_on, plainly, theirs
from of_torch import bytes_of, net

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore", "error:::fallline")]


def module(make, clip=None, manual=False):
    """The network, which trains by Lightning's loop or steps by itself, and is judged at the point to report."""
    class Module(need("lightning.pytorch").LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.losses, self.automatic_optimization = net(dtype="float32"), [], not manual

        def configure_optimizers(self):
            opt = make(self.net.parameters())
            return {"optimizer": opt, "lr_scheduler": {"scheduler": cosine(opt), "interval": "step"}}

        def on_train_batch_start(self, batch, k):
            getattr(self.optimizers(), "train", list)()

        def training_step(self, batch, k):
            loss = loss_on(self.net, *batch)
            self.losses.append(loss.item())
            if not manual:
                return loss
            opt = self.optimizers()
            opt.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(opt, gradient_clip_val=clip)
            opt.step()
            return self.lr_schedulers().step()

        def on_validation_start(self):
            getattr(self.optimizers(), "eval", list)()

        def validation_step(self, batch, k):
            loss_on(self.net, *batch)

    return Module()


def fit(make, clip, folder, manual=False, **how):
    lightning, it = need("lightning.pytorch"), module(make, clip, manual)
    keeper = lightning.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="cpu", callbacks=[keeper], gradient_clip_val=None if manual else clip, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0)  # fmt: skip
    trainer.fit(it, batches(), batches(), weights_only=True, **how)
    getattr(it.trainer.optimizers[0], "train", list)()
    return it


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize(("make", "clip"), ALIKE.values(), ids=ALIKE)
def test_losses_are_those_of_torchs_optimizer(make, clip, manual, tmp_path):
    assert_alike(fit(make, clip, tmp_path / "a", manual).losses, fit(theirs, CLIP, tmp_path / "b", manual).losses)


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize(("make", "clip"), WAYS.values(), ids=WAYS)
def test_a_run_is_a_plain_loops_and_one_that_goes_on_from_a_checkpoint_is_too_to_the_bit(make, clip, manual, tmp_path):
    model, losses = plainly(make, clip)
    straight = fit(make, clip, tmp_path, manual)
    resumed = fit(make, clip, tmp_path, manual, ckpt_path=tmp_path / "epoch=1.ckpt")
    assert losses == straight.losses
    assert losses[8:] == resumed.losses
    assert bytes_of(model) == bytes_of(straight.net) == bytes_of(resumed.net)
