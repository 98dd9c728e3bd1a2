"""Training a small GPT-2 by the HF Trainer, and going on from its checkpoints."""

from __future__ import annotations

import pytest

import fallline as fl
from needed import need
from of_frameworks import CLIP, DECAY, RATE, assert_alike
from of_torch import bytes_of

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore", "error:::fallline")]

CLIPPING = fl.chain(fl.clip_norm(CLIP), fl.dialects.torch.AdamW(RATE, weight_decay=DECAY))
FREE = fl.chain(fl.clip_norm(CLIP), fl.ScheduleFreeAdamW(RATE))


def by_class(cls, **settings):
    return {"optimizer_cls_and_kwargs": (cls, settings)}


def theirs(model):
    return by_class(need("torch").optim.AdamW, lr=RATE)


def grouped(model):
    """An optimizer of groups like those that the Trainer makes, by the key that the chain has."""
    rest = [p for p in model.parameters() if p.ndim < 2]
    return {"optimizers": (fl.torch.Optimizer([
        {"params": [p for p in model.parameters() if p.ndim >= 2]}, {"params": rest, "rate": 0.0}], CLIPPING), None)}


# What the Trainer is given, and the norm that it is to clip to.
ALIKE = {
    "by class": (lambda model: by_class(fl.torch.AdamW, lr=RATE), CLIP),
    "a chain, as it is": (grouped, 0.0),
}
WAYS = {**ALIKE, "Schedule-Free, by class": (lambda model: by_class(fl.torch.Optimizer, opt=FREE), 0.0)}


def train(given, clip, folder, **how):
    """The model and its losses after 8 steps of 2 batches each, judged at every second step and then saved."""
    transformers, torch, losses = need("transformers"), need("torch"), []

    class Trainer(transformers.Trainer):
        def training_step(self, *args, **named):
            losses.append(super().training_step(*args, **named).item())
            return torch.tensor(losses[-1])

    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=17, n_positions=12, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0))
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(17, (64, 12))]
    args = transformers.TrainingArguments(
        folder, max_steps=8, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_grad_norm=clip,
        learning_rate=RATE, weight_decay=DECAY, lr_scheduler_type="cosine", warmup_steps=2, eval_strategy="steps",
        eval_steps=2, save_steps=2, use_cpu=True, report_to="none", disable_tqdm=True)  # fmt: skip
    trainer = Trainer(model, args, train_dataset=rows, eval_dataset=rows[:4], **given(model))
    trainer.train(**how)
    trainer.optimizer.train()
    return model, losses


@pytest.mark.parametrize(("given", "clip"), ALIKE.values(), ids=ALIKE)
def test_losses_are_those_of_torchs_optimizer(given, clip, tmp_path):
    assert_alike(train(given, clip, tmp_path / "a")[1], train(theirs, CLIP, tmp_path / "b")[1])


@pytest.mark.parametrize(("given", "clip"), WAYS.values(), ids=WAYS)
def test_a_run_that_goes_on_from_a_checkpoint_has_the_bits_of_one_that_never_stopped(given, clip, tmp_path):
    model, losses = train(given, clip, tmp_path)
    again, rest = train(given, clip, tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert losses[8:] == rest
    assert bytes_of(again) == bytes_of(model)
