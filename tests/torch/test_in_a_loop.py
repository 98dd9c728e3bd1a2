"""What training loops do to an optimizer of torch, done to ours: closures, hooks, groups, state, refusals."""

from __future__ import annotations

import pickle

import pytest

import fallline as fl
from needed import need
from of_torch import bytes_of, far, loss_of, net, through_a_file, train
from support import run_alone


def test_a_closure_is_called_with_gradients_on_and_its_loss_comes_back():
    torch, model = need("torch"), net()
    opt = fl.torch.Adam(model.parameters(), lr=0.01)

    def closure():
        assert torch.is_grad_enabled()
        opt.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    losses = [float(opt.step(closure).detach()) for _ in range(20)]
    assert losses[-1] < losses[0]
    with torch.no_grad():
        assert opt.step(closure) is not None
    assert opt.step() is None


def test_hooks_are_called():
    model, seen = net(), []
    opt = fl.torch.SGD(model.parameters())
    opt.register_step_pre_hook(lambda *a: seen.append("before"))
    opt.register_step_post_hook(lambda *a: seen.append("after"))
    opt.register_state_dict_post_hook(lambda o, d: {**d, "mine": 1})
    opt.register_load_state_dict_pre_hook(lambda o, d: seen.append("load") or {**d, "param_groups": [
        {**group, "lr": 0.5} for group in d["param_groups"]]})
    opt.register_load_state_dict_post_hook(lambda o: seen.append(o.param_groups[0]["lr"]))
    train(model, opt, 1)
    assert opt.state_dict()["mine"] == 1
    opt.load_state_dict(opt.state_dict())
    assert seen == ["before", "after", "load", 0.5]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_state_shares_the_memory_of_what_steps_and_is_float32_for_halves(dtype):
    torch, model = need("torch"), net(dtype=dtype)
    opt = fl.torch.Adam(model.parameters(), lr=0.01)
    assert opt.state_dict()["state"] == {}
    opt.load_state_dict(opt.state_dict())  # before the first step, as Accelerate does
    train(model, opt, 3)
    wide = torch.float32 if dtype in ("bfloat16", "float16") else getattr(torch, dtype)
    for p, own in opt.state.items():
        assert own["exp_avg"].dtype == wide
        assert own["exp_avg"].shape == p.shape
        assert (own["step"].dtype, float(own["step"])) == (torch.float32, 3.0)
    before = [own["exp_avg"].clone() for own in opt.state.values()]
    train(model, opt, 1)
    assert all(not torch.equal(a, own["exp_avg"]) for a, own in zip(before, opt.state.values()))
    again = net(1, dtype)
    weights, state = through_a_file(model.state_dict(), opt.state_dict())
    again.load_state_dict(weights)
    other = fl.torch.Adam(again.parameters(), lr=0.01)
    other.load_state_dict(state)
    train(model, opt, 3)
    train(again, other, 3)
    assert bytes_of(again) == bytes_of(model)
    assert {own["exp_avg"].dtype for own in other.state.values()} == {wide}


def test_what_is_done_to_the_state_counts():
    torch = need("torch")
    for touch in (
        lambda o, p: o.state.clear(), lambda o, p: o.state.pop(p), lambda o, p: o.state[p].clear(),
        lambda o, p: o.state.__setitem__(p, {}), lambda o, p: o.state[p]["exp_avg"].zero_(),
        lambda o, p: o.state[p].update(exp_avg=torch.zeros_like(p)), lambda o, p: o.state[p]["step"].fill_(1.0),
        lambda o, p: o.state.__setitem__(p, {k: v.clone() for k, v in o.state[p].items()}),
    ):  # fmt: skip
        theirs, ours = net(), net()
        t, o = torch.optim.Adam(theirs.parameters(), lr=0.01), fl.torch.Adam(ours.parameters(), lr=0.01)
        for model, opt in ((theirs, t), (ours, o)):
            train(model, opt, 3)
            touch(opt, next(model.parameters()))
            train(model, opt, 3, first=3)
        assert far(theirs, ours) < 1e-12
        assert len(o.state) == len(t.state)


def test_parameters_may_be_frozen_thawed_added_and_without_gradients():
    torch = need("torch")
    theirs, ours = net(), net()
    t = torch.optim.Adam(list(theirs.parameters())[:2], lr=0.01)
    o = fl.torch.Adam(list(ours.parameters())[:2], lr=0.01)
    for model, opt in ((theirs, t), (ours, o)):
        params = list(model.parameters())
        train(model, opt, 2)
        params[0].requires_grad_(False)
        params[0].grad = None
        train(model, opt, 2, first=2)
        opt.add_param_group({"params": params[2:], "lr": 0.1, "betas": (0.5, 0.9)})
        train(model, opt, 2, first=4)
        params[0].requires_grad_(True)
        train(model, opt, 2, first=6)
    assert far(theirs, ours) < 1e-12
    assert [float(own["step"]) for own in o.state.values()] == [float(own["step"]) for own in t.state.values()]


def test_shared_parameters_and_layouts_of_any_kind_step_as_others():
    torch = need("torch")
    results = []
    for cls in (torch.optim.Adam, fl.torch.Adam):
        torch.manual_seed(0)
        conv = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        turned = torch.nn.Parameter(torch.randn(4, 6).t())
        scalar = torch.nn.Parameter(torch.tensor(2.0))
        empty = torch.nn.Parameter(torch.zeros(0, 3))
        wave = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
        params = [*conv.parameters(), turned, scalar, empty, wave]
        opt = cls(params, lr=0.01)
        for k in range(5):
            for p in params:
                p.grad = torch.full_like(p, 0.1 * (k + 1))
            opt.step()
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
        results.append([p.detach().clone() for p in params])
    for p, q in zip(*results):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def test_a_graph_that_holds_an_old_value_notices():
    torch = need("torch")
    w = torch.nn.Parameter(torch.ones(3))
    y = (w * w).sum()
    w.grad = torch.ones(3)
    fl.torch.SGD([w]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_what_is_not_finite_is_refused_or_scaled_away():
    torch, model = need("torch"), net()
    opt = fl.torch.Adam(model.parameters())
    train(model, opt, 1)
    before = bytes_of(model)
    next(model.parameters()).grad[0, 0] = torch.nan
    with pytest.raises(fl.NonFiniteGradient, match="Gradient not finite: 0 has 1 NaN"):
        opt.step()
    assert bytes_of(model) == before
    skipping = fl.torch.Adam(model.parameters(), nonfinite="skip")
    skipping.step()
    assert bytes_of(model) == before
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for k in range(4):
        opt.zero_grad()
        scaler.scale(loss_of(model, k)).backward()
        if k == 2:
            next(model.parameters()).grad[0, 0] = torch.inf
        scaler.step(opt)
        scaler.update()
    assert float(opt.state[next(model.parameters())]["step"]) == 4.0  # one of them was left out
    assert scaler.get_scale() == 2.0


REFUSED = {
    "Adam(params, lr=-1.0)": (ValueError, "lr of dialects.torch.Adam must be ≥ 0"),
    "Adam(params, betas=(1.0, 0.9))": (ValueError, "betas of dialects.torch.Adam must be"),
    "Adam(params, capturable=True)": (ValueError, "capturable=True of torch's optimizers is not taken here"),
    "SGD(params, nesterov=True)": (ValueError, "nesterov=True of dialects.torch.SGD needs a momentum"),
    "Adam(params, rate=1.0)": (TypeError, "fallline.torch.Adam.*rate"),
    "Adam([{'params': params, 'lr': -1.0}])": (ValueError, "lr of dialects.torch.Adam must be ≥ 0"),
    "Adam([])": (ValueError, "empty parameter list"),
    "Adam(params[0])": (TypeError, "should be an iterable of Tensors"),
    "Optimizer(params, torch.optim.Adam)": (TypeError, "takes parameters and an optimizer of fallline"),
    "Lion": (AttributeError, r"torch has no Lion: write fallline.torch.Optimizer\(params, fallline.Lion\(...\)\)"),
    "Adma": (AttributeError, "has no attribute 'Adma'. Known"),
    "Optimizer([{'params': params, 'n': 3}], fl.accumulate(2, fl.SGD()))": (
        ValueError, r"n of accumulate\(SGD\) must be the same for all groups, 2. Got 3"),
    "Optimizer([{'params': params, 'weight_decay': 0.0}], fl.chain(fl.Adam(), fl.weight_decay(0.1)))": (
        ValueError, "weight_decay of a group is no setting of .* Known: lr, .*, rate. Write rate in its place"),
    "Optimizer([{'params': params, 'weight_decay': 0.1}], fl.Adam())": (
        ValueError, "weight_decay of a group is no setting of Adam. .* It is a link of a chain"),
}  # fmt: skip


@pytest.mark.parametrize("code", REFUSED)
def test_what_cannot_be_is_refused_as_torch_does_with_a_sentence_of_ours(code):
    torch = need("torch")
    error, message = REFUSED[code]
    params = list(net().parameters())
    for p in params:
        p.grad = torch.ones_like(p)
    scope = {"params": params, "torch": torch, "fl": fl}
    with pytest.raises(error, match=message):
        eval(f"fl.torch.{code}" if code[0] != "[" else code, scope)


def test_a_decay_of_0_that_a_framework_writes_is_taken_where_nothing_decays():
    model = net()
    fl.torch.Optimizer([{"params": model.parameters(), "weight_decay": 0.0}], fl.Adam())


def test_sparse_gradients_are_refused_as_torch_does():
    torch = need("torch")
    layer = torch.nn.Embedding(5, 3, sparse=True)
    opt = fl.torch.Adam(layer.parameters())
    layer(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        opt.step()


def test_loaded_groups_that_cannot_be_stepped_are_refused_before_anything_changes():
    model = net()
    opt = fl.torch.Adam(model.parameters(), lr=0.01)
    train(model, opt, 2)
    d = opt.state_dict()
    bad = {**d, "param_groups": [{**d["param_groups"][0], "capturable": True}]}
    with pytest.raises(ValueError, match="capturable=True"):
        opt.load_state_dict(bad)
    assert opt.param_groups[0]["lr"] == 0.01
    train(model, opt, 1)
    assert float(next(iter(opt.state.values()))["step"]) == 3.0


@fl.rule
def signed(g, m=0, *, lr: fl.NonNegative = 1e-2, beta: fl.Fraction = 0.9):
    m = beta * m + (1 - beta) * g
    return -lr * fl.sign(m), m


OWN = {
    "a rule of one's own": lambda: fl.Optimizer(signed, lr=0.05),
    "a chain": lambda: fl.chain(fl.clip_norm(0.5), fl.Lion(0.01), fl.weight_decay(0.1), fl.average(0.9)),
    "with a number of the tree": lambda: fl.Prodigy(),
    "whole leaves": lambda: fl.Muon(0.01),
    "a schedule": lambda: fl.Adam(fl.schedules.cosine(0.1, steps=10, warmup=2)),
    "gathered": lambda: fl.accumulate(2, fl.Adam(0.1)),
    "by name": lambda: fl.partition({"weight": fl.Momentum(0.1), "bias": fl.Adam(0.01)}, lambda path: path[2:]),
    "masked": lambda: fl.mask(lambda path: path.endswith("weight"), fl.Adam(0.1)),
    "settings by name": lambda: fl.AdamW(0.1, weight_decay=fl.by_path(lambda path: 0.1 if path.endswith("t") else 0.0)),
}  # fmt: skip


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_any_optimizer_of_ours_steps_as_it_does_by_itself_and_resumes_to_the_bit(make):
    torch, model, alone = need("torch"), net(), net()
    opt, plain = fl.torch.Optimizer(model.named_parameters(), make()), make()
    params = dict(alone.named_parameters())
    for k in range(6):
        train(model, opt, 1, first=k)
        alone.zero_grad()
        loss_of(alone, k).backward()
        plain.step(params, {name: p.grad for name, p in params.items()})
        assert bytes_of(model) == bytes_of(alone)
    again = net(1)
    weights, state = through_a_file(model.state_dict(), opt.state_dict())
    again.load_state_dict(weights)
    other = fl.torch.Optimizer(again.named_parameters(), make())
    other.load_state_dict(state)
    train(model, opt, 4, first=6)
    train(again, other, 4, first=6)
    assert bytes_of(again) == bytes_of(model)
    assert torch.is_tensor(next(model.parameters()))


def test_a_schedule_of_ours_is_shown_in_the_group_until_another_value_is_written():
    model, schedule = net(), fl.schedules.linear(0.1, steps=10)
    opt = fl.torch.Optimizer(model.parameters(), fl.Adam(schedule))
    for t in range(4):
        assert opt.param_groups[0]["lr"] == schedule(t)
        train(model, opt, 1)
    opt.param_groups[0]["lr"] = 0.5
    train(model, opt, 2)
    assert opt.param_groups[0]["lr"] == 0.5
    assert "lr=lr of its group" in repr(opt._inner)


def test_it_is_pickled_with_its_state():
    model = net()
    opt = fl.torch.AdamW(model.parameters(), lr=0.01)
    train(model, opt, 3)
    again, other = pickle.loads(pickle.dumps((model, opt)))
    train(model, opt, 3)
    train(again, other, 3)
    assert bytes_of(again) == bytes_of(model)


@pytest.mark.parametrize("make", [lambda: fl.ScheduleFreeAdamW(0.1), lambda: fl.Nesterov(0.01)])
def test_eval_shows_the_point_to_report_and_train_goes_back(make):
    torch, model, other = need("torch"), net(), net()
    opt, straight = fl.torch.Optimizer(model.parameters(), make()), fl.torch.Optimizer(other.parameters(), make())
    opt.eval()  # before the first step, as Accelerate does
    opt.train()
    for k in range(6):
        train(model, opt, 1, first=k)
        train(other, straight, 1, first=k)
        stepped = bytes_of(model)
        rest = straight._inner.rest([p.detach() for p in other.parameters()])
        opt.eval()
        opt.eval()
        opt.state["mine"] = 5
        assert all(torch.equal(p.detach(), q) for p, q in zip(model.parameters(), rest))
        with pytest.raises(RuntimeError, match=r"call train\(\) on the optimizer before a step"):
            opt.step()
        opt.train()
        assert bytes_of(model) == stepped == bytes_of(other)
    plain = fl.torch.Adam(model.parameters())
    train(model, plain, 1)
    before = bytes_of(model)
    plain.eval()
    assert bytes_of(model) == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # within torch's compiler
def test_a_compiled_step_of_training_is_that_of_one_that_is_not():
    torch = need("torch")
    model, other = net(dtype="float32"), net(dtype="float32")
    opt, plain = fl.torch.AdamW(model.parameters(), lr=0.01), fl.torch.AdamW(other.parameters(), lr=0.01)

    @torch.compile(backend="aot_eager")
    def step(k):
        opt.zero_grad()
        loss = loss_of(model, k)
        loss.backward()
        opt.step()
        return loss

    for k in range(3):
        step(k)
    train(other, plain, 3)
    assert far(model, other) < 1e-6
    assert float(next(iter(opt.state.values()))["step"]) == 3.0


@pytest.mark.parametrize("make", [lambda: fl.ScheduleFreeAdamW(0.1), lambda: fl.Nesterov(0.01)])
@pytest.mark.parametrize("carry", ["files", "pickle"])
def test_a_run_that_was_carried_at_the_point_to_report_goes_on_to_the_bit(make, carry):
    """The HF Trainer evaluates before it saves."""
    model, again = net(), net(1)
    opt = fl.torch.Optimizer(model.parameters(), make())
    train(model, opt, 4)
    stepped = bytes_of(model)
    opt.eval()
    if carry == "files":
        weights, state = through_a_file(model.state_dict(), opt.state_dict())
        again.load_state_dict(weights)
        other = fl.torch.Optimizer(again.parameters(), make())
        other.load_state_dict(state)
    else:
        again, other = pickle.loads(pickle.dumps((model, opt)))
    other.eval()
    assert bytes_of(again) == bytes_of(model) != stepped
    with pytest.raises(RuntimeError, match=r"call train\(\) on the optimizer before a step"):
        other.step()
    for its, of in ((model, opt), (again, other)):
        of.train()
        assert bytes_of(its) == stepped
        train(its, of, 4, first=4)
    assert bytes_of(again) == bytes_of(model)


@pytest.mark.parametrize("make", [lambda: fl.ScheduleFreeAdamW(0.1), lambda: fl.Nesterov(0.01)])
def test_a_loaded_optimizer_shows_the_point_to_report_before_its_first_step(make):
    model, again = net(), net(1)
    opt = fl.torch.Optimizer(model.parameters(), make())
    train(model, opt, 4)
    weights, state = through_a_file(model.state_dict(), opt.state_dict())
    again.load_state_dict(weights)
    other = fl.torch.Optimizer(again.parameters(), make())
    other.load_state_dict(state)
    for of in (opt, other):
        of.eval()
    assert bytes_of(again) == bytes_of(model)


def test_a_wrapper_of_our_class_that_is_another_object_shows_and_hides_the_point_of_the_optimizer():
    """As Lightning's, that has the class for its own and asks the optimizer for what it lacks."""
    model = net()
    opt = fl.torch.Optimizer(model.parameters(), fl.ScheduleFreeAdamW(0.1))

    class Wrapper(fl.torch.Optimizer):
        def __init__(self):
            self.optimizer = opt

        def __getattr__(self, name):
            return getattr(self.optimizer, name)

    train(model, opt, 3)
    stepped = bytes_of(model)
    Wrapper().eval()
    with pytest.raises(RuntimeError, match=r"call train\(\)"):
        opt.step()
    Wrapper().train()
    assert bytes_of(model) == stepped
    train(model, opt, 1)


# ---- what is done to groups, state and modes while it runs -----------------------------------------------------------


def lockstep(name, how, touch, at=5, steps=10):
    """Ours and torch's beside each other, with something done to both at a step; the models and optimizers."""
    torch, models = need("torch"), [net(), net()]
    given = (lambda model: (how(model), {})) if callable(how) else (lambda model: (model.parameters(), how))
    opts = []
    for model, module in zip(models, (torch.optim, fl.torch)):
        params, more = given(model)
        opts.append(getattr(module, name)(params, **more))
    for model, opt in zip(models, opts):
        train(model, opt, at)
        touch(opt, list(model.parameters()))
        train(model, opt, steps - at, first=at)
    return models, opts


def two_groups(model):
    params = list(model.parameters())
    return [{"params": params[:2], "lr": 0.1}, {"params": params[2:], "lr": 0.001}]


LIVE = {
    "maximize": ("Adam", {}, lambda o, ps: o.param_groups[0].update(maximize=True)),
    "nesterov": ("SGD", {"momentum": 0.9}, lambda o, ps: o.param_groups[0].update(nesterov=True)),
    "amsgrad off": ("Adam", {"amsgrad": True}, lambda o, ps: o.param_groups[0].update(amsgrad=False)),
    "momentum on": ("SGD", {}, lambda o, ps: o.param_groups[0].update(momentum=0.9)),
    "momentum off": ("SGD", {"momentum": 0.9}, lambda o, ps: o.param_groups[0].update(momentum=0.0)),
    "weight decay": ("AdamW", {"weight_decay": 0.0}, lambda o, ps: o.param_groups[0].update(weight_decay=0.1)),
    "betas": ("Adam", {}, lambda o, ps: o.param_groups[0].update(betas=(0.5, 0.6))),
    "moved to another group": ("Adam", two_groups, lambda o, ps: o.param_groups[1]["params"].insert(
        0, o.param_groups[0]["params"].pop())),
    "storage of the state": ("Adam", {}, lambda o, ps: o.state[ps[0]].__getitem__("exp_avg").__setattr__(
        "data", ps[0].detach() * 0)),
    "empty states asked for": ("Adam", {}, lambda o, ps: [o.state[p] for p in ps]),
}  # fmt: skip


@pytest.mark.parametrize("touched", LIVE)
def test_what_is_written_into_a_live_group_or_state_counts_as_with_torch(touched):
    models, opts = lockstep(*LIVE[touched])
    assert far(*models) < 1e-11
    assert [own.keys() - {"mu"} for own in opts[0].state.values()] <= [own.keys() for own in opts[1].state.values()]


def test_a_momentum_that_is_0_at_times_keeps_its_buffer_and_plain_sgd_has_none():
    torch = need("torch")

    def touch(opt, _):
        for k, momentum in enumerate((0.0, 0.0, 0.9, 0.0, 0.9)):
            opt.param_groups[0]["momentum"] = momentum
            model = {id(opts[0]): models[0], id(opts[1]): models[1]}[id(opt)]
            train(model, opt, 2, first=20 + k)

    models = [net(), net()]
    opts = [module.SGD(model.parameters(), lr=0.01, momentum=0.9)
            for model, module in zip(models, (torch.optim, fl.torch))]  # fmt: skip
    for model, opt in zip(models, opts):
        train(model, opt, 2)
        touch(opt, None)
    assert far(*models) < 1e-12
    plain = fl.torch.SGD(models[0].parameters(), lr=0.01)
    train(models[0], plain, 2)
    assert not plain.state


def test_a_flag_that_cannot_be_is_refused_where_it_is_written_into_a_live_group():
    model = net()
    opt = fl.torch.Adam(model.parameters())
    train(model, opt, 1)
    opt.param_groups[0]["capturable"] = True
    with pytest.raises(ValueError, match="capturable=True"):
        train(model, opt, 1)


def test_parameters_of_one_name_are_refused():
    models = [net(), net(1)]
    with pytest.raises(ValueError, match=r"Two parameters are called '0\.weight': give them names of their own"):
        fl.torch.Optimizer([*models[0].named_parameters(), *models[1].named_parameters()], fl.SGD())
    opt = fl.torch.Adam([*models[0].named_parameters(), *models[1].named_parameters()])  # for whom names say nothing
    before = [bytes_of(model) for model in models]
    for model in models:
        loss_of(model).backward()
    opt.step()
    assert all(now != then for model, own in zip(models, before) for now, then in zip(bytes_of(model), own))


@pytest.mark.parametrize("carried", ["a file", "a copy", "a pickle"])
@pytest.mark.parametrize("asked", ["eval at once", "eval before"])
def test_the_point_to_report_survives_being_carried(carried, asked):
    import copy

    torch, model, straight = need("torch"), net(), net()
    opt, plain = (fl.torch.Optimizer(each.parameters(), fl.ScheduleFreeAdamW(0.1)) for each in (model, straight))
    train(model, opt, 4)
    train(straight, plain, 4)
    rest = [p.clone() for p in plain.inner.rest([p.detach() for p in straight.parameters()])]
    if asked == "eval before":
        opt.eval()
    if carried == "a file":
        weights, state = through_a_file(model.state_dict(), opt.state_dict())
        model, opt = net(1), None
        model.load_state_dict(weights)
        opt = fl.torch.Optimizer(model.parameters(), fl.ScheduleFreeAdamW(0.1))
        opt.load_state_dict(state)
    else:
        model, opt = copy.deepcopy((model, opt)) if carried == "a copy" else pickle.loads(pickle.dumps((model, opt)))
    opt.eval()
    assert all(torch.equal(p.detach(), q) for p, q in zip(model.parameters(), rest))
    opt.train()
    train(model, opt, 3, first=4)
    train(straight, plain, 3, first=4)
    assert bytes_of(model) == bytes_of(straight)


@pytest.mark.parametrize("what", ["a group added", "the state cleared", "carried", "set to 0 and back"])
def test_a_schedule_of_ours_goes_on_whatever_is_done(what):
    torch, model = need("torch"), net()
    schedule = fl.schedules.linear(0.1, steps=10)
    params = list(model.parameters())
    opt = fl.torch.Optimizer(params[:2], fl.Adam(schedule))
    for p in params[1:]:
        p.requires_grad_(False)
    train(model, opt, 3)
    train(model, opt, 1)
    if what == "a group added":
        opt.add_param_group({"params": [params[2].requires_grad_(True)]})
        opt.add_param_group({"params": [params[3].requires_grad_(True)], "lr": 0.5})
    elif what == "the state cleared":
        opt.state.clear()
    elif what == "carried":
        params[0].grad = None
        opt.step()  # which no leaf counts
        state = opt.state_dict()
        opt = fl.torch.Optimizer(params[:2], fl.Adam(schedule))
        opt.load_state_dict(state)
        train(model, opt, 1)
        assert opt.param_groups[0]["lr"] == schedule(6)
        opt.param_groups[0]["lr"] = schedule(6)  # another number, of the same value
        opt.param_groups[0]["lr"] = float(torch.tensor(schedule(6), dtype=torch.float64))
        again = fl.torch.Optimizer(params[:2], fl.Adam(schedule))
        again.load_state_dict(opt.state_dict())
        train(model, again, 2)
        assert again.param_groups[0]["lr"] == schedule(6)
        return
    else:
        shown = opt.param_groups[0]["lr"]
        opt.param_groups[0]["lr"] = 0.0
        opt.step()
        opt.param_groups[0]["lr"] = shown
    train(model, opt, 1)
    t = opt.inner.t
    assert opt.param_groups[0]["lr"] == schedule(t)
    assert [group["lr"] for group in opt.param_groups[1:]] == ([schedule(t), 0.5] if what == "a group added" else [])


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_what_is_gathered_goes_along_from_the_first_call_on(cut):
    model, other = net(), net()
    opt, straight = (fl.torch.Optimizer(each.parameters(), fl.accumulate(3, fl.Adam(0.1))) for each in (model, other))
    train(model, opt, cut)
    train(other, straight, cut)
    again = fl.torch.Optimizer(model.parameters(), fl.accumulate(3, fl.Adam(0.1)))
    again.load_state_dict(opt.state_dict())
    train(model, again, 5, first=cut)
    train(other, straight, 5, first=cut)
    assert bytes_of(model) == bytes_of(other)


def test_what_is_one_for_all_goes_along_whoever_has_no_gradient_and_with_groups():
    for make in (fl.Prodigy, lambda: fl.accumulate(2, fl.Prodigy())):
        model, other = net(), net()
        for each in (model, other):
            next(each.parameters()).requires_grad_(False)
        opt, straight = (fl.torch.Optimizer([{"params": list(each.parameters())[:2]},
                                             {"params": list(each.parameters())[2:]}], make())
                         for each in (model, other))  # fmt: skip
        train(model, opt, 4)
        train(other, straight, 4)
        again = fl.torch.Optimizer([{"params": list(model.parameters())[:2]},
                                    {"params": list(model.parameters())[2:]}], make())  # fmt: skip
        again.load_state_dict(opt.state_dict())
        train(model, again, 4, first=4)
        train(other, straight, 4, first=4)
        assert bytes_of(model) == bytes_of(other)
    params = list(net().parameters())
    groups = [{"params": params[:2], "weight": 2.0}, {"params": params[2:]}]
    opt = fl.torch.Optimizer(groups, fl.accumulate(2, fl.SGD()))
    with pytest.raises(ValueError, match=r"weight is used in a number for all parameters of accumulate\(SGD\) and"):
        opt.step()


def test_a_state_of_another_optimizer_or_shape_is_refused_by_name():
    torch, model = need("torch"), net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, sgd, 2)
    adam = fl.torch.Adam(model.parameters())
    state = {**sgd.state_dict(), "param_groups": adam.state_dict()["param_groups"]}
    adam.load_state_dict(state)
    with pytest.raises(ValueError, match="The state of parameter '0' has no exp_avg: it has momentum_buffer"):
        adam.step()
    good = fl.torch.Adam(model.parameters())
    train(model, good, 1)
    for key, value, message in (("exp_avg", torch.zeros(5, 8), "exp_avg of parameter .0. in the state must have the"),
                                ("step", torch.tensor(-1.0), "step of parameter '0' in the state must be a number")):
        d = good.state_dict()
        d["state"][0] = {**d["state"][0], key: value}
        bad = fl.torch.Adam(model.parameters())
        bad.load_state_dict(d)
        with pytest.raises(ValueError, match=message):
            bad.step()
    d = good.state_dict()
    d["state"]["mine"] = {"a": 1}
    good.load_state_dict(d)
    assert good.state["mine"] == {"a": 1}
    train(model, good, 1)


def test_a_schedule_that_hears_is_refused_with_torchs():
    model = net()
    with pytest.raises(TypeError, match=r"use torch.optim.lr_scheduler.ReduceLROnPlateau"):
        fl.torch.Optimizer(model.parameters(), fl.SGD(fl.schedules.plateau(0.1)))


def test_the_state_stays_one_object():
    model = net()
    opt = fl.torch.Adam(model.parameters())
    state = opt.state
    train(model, opt, 2)
    assert opt.state is state
    assert len(state) == 4


# ---- other devices, of which the tests have only one that holds no numbers -------------------------------------------


def counted(opt):
    """The operations of torch that a step takes."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    names = []
    with Counting():
        opt.step()
    return names


DEVICES = {name: {"momentum": 0.9} if name == "SGD" else {} for name in fl.dialects.torch.__all__
           if name not in ("Muon", "Adafactor")}  # functions of NumPy's arrays
FEW = {"Rprop": 4000}  # which chooses by comparisons, for which torch has no list, and so steps one by one itself


@pytest.mark.parametrize("name", DEVICES)
def test_parameters_elsewhere_are_stepped_together_by_operations_of_torch(name):
    torch = need("torch")
    params = [torch.nn.Parameter(torch.empty(20, device="meta")) for _ in range(150)]
    for p in params:
        p.grad = torch.empty_like(p)
    opt = getattr(fl.torch, name)(params, nonfinite="propagate", **DEVICES[name])
    opt.step()
    opt.step()
    names = counted(opt)
    assert len(names) <= FEW.get(name, 40), names
    assert all(value.device.type == "meta" for own in opt.state.values() for key, value in own.items()
               if key != "step" and value.ndim)  # fmt: skip
    checked = getattr(fl.torch, name)(params, **DEVICES[name])
    with pytest.raises(TypeError, match="whose numbers cannot be read"):
        checked.step()


@pytest.mark.parametrize("name", DEVICES)
def test_what_is_done_together_is_what_is_done_by_itself(name):
    torch, models = need("torch"), [net(), net()]
    opts = [getattr(fl.torch, name)(model.parameters(), engine=engine, **DEVICES[name])
            for model, engine in zip(models, ("eager", "native"))]  # fmt: skip
    for model, opt in zip(models, opts):
        train(model, opt, 8)
        next(model.parameters()).grad[0, 0] = torch.inf
        with pytest.raises(fl.NonFiniteGradient, match="0 has 1 infinite"):
            opt.step()
    assert far(*models) < 1e-9


NORMED = {"clipped": lambda **o: fl.chain(fl.clip_norm(1.0), fl.dialects.torch.AdamW(), **o),
          "LARS": lambda **o: fl.LARS(0.1, **o), "LAMB": lambda **o: fl.LAMB(0.1, **o)}  # fmt: skip


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize("size", [1.0, 1e30, 1e-30])  # whose squares float32 does not have
def test_norms_of_many_tensors_are_asked_for_together(name, size):
    torch = need("torch")
    torch.manual_seed(0)
    start, grads = ([scale * torch.randn(20) for _ in range(150)] for scale in (1.0, size))
    ends = []
    for engine in ("eager", "reference"):
        params = [torch.nn.Parameter(value.clone()) for value in start]
        opt = fl.torch.Optimizer(params, NORMED[name](engine=engine))
        for p, g in zip(params, grads):
            p.grad = g.clone()
        for _ in range(3):
            opt.step()
        if engine == "eager":
            norms = [operation for operation in counted(opt) if "norm" in operation or "scalar_dense" in operation]
            assert len(norms) <= 10, norms  # and the gradients' largest, by which it is known that all are finite
        else:
            opt.step()
        ends.append(torch.stack([p.detach() for p in params]))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_a_clipped_step_of_many_tensors_is_few_operations():
    torch = need("torch")
    params = [torch.nn.Parameter(torch.ones(20)) for _ in range(150)]
    for p in params:
        p.grad = torch.ones_like(p)
    opt = fl.torch.Optimizer(params, NORMED["clipped"](engine="eager"))
    opt.step()
    opt.step()
    names = [operation for operation in counted(opt) if "detach" not in operation]  # views, for who shares host memory
    assert len(names) <= 50, names


def test_choices_by_comparison_mean_the_same_for_all_at_once():
    torch = need("torch")
    from fallline._arrays.batches import Batch
    from fallline._engines.array_api import run_eagerly
    from fallline._formula.chain import Chain

    values = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 1e-310, -1e-310, 2.3e-308, torch.inf, torch.nan],
                          dtype=torch.float64)  # fmt: skip
    other = values.roll(3)

    @fl.rule
    def choosing(g, x, m=0, *, lr: fl.NonNegative = 0.5):
        m = fl.maximum(fl.minimum(g, x), 0.25) + fl.sign(g) + fl.where(g >= x, g, 2.0) + fl.where(x < 0.5, 1.0, x)
        larger = fl.where(x > m, x, m) * fl.where(x == x, 2.0, x) + fl.where(g == g, x, g)
        return -lr * fl.maximum(m, g) / fl.root(m * m) + larger, m

    program = Chain([choosing()]).stepping
    arrays = {"g": values, "x": other, "m": values.flip(0)}
    scalars = list(program.evaluate([0.5], 1, 2.2250738585072014e-308)[: len(program.scalars)])
    plain = run_eagerly(program, arrays, scalars)
    together = run_eagerly(program, {name: Batch([a, a]) for name, a in arrays.items()}, scalars)
    for name, expected in plain.items():
        for found in together[name].tensors:
            torch.testing.assert_close(found, expected, rtol=1e-15, atol=0.0, equal_nan=True)


def test_where_numbers_are_asked_of_a_tensor_that_has_none_it_is_refused_with_what_to_pass(tmp_path):
    torch = need("torch")
    none, some = torch.ones(2, device="meta"), torch.ones(2)
    for call, what in (
        (lambda: fl.SGD().step(some, none), "the gradient is a Tensor of torch whose numbers cannot be read"),
        (lambda: fl.SGD().step({"a": none}, {"a": some}), "gradient 'a' must be on meta, as the parameter"),
        (lambda: fl.SGD().step(none, none), "the gradient"), (lambda: fl.SGD(none), "lr of SGD"),
        (lambda: fl.Adam().save(tmp_path / "never", {"a": none}), "parameter 'a'"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=what):
            call()
    assert not list(tmp_path.iterdir())


def test_a_setting_in_the_place_of_parameters_is_refused_by_a_sentence():
    need("torch")
    for make in (fl.torch.Adam, lambda params: fl.torch.Optimizer(params, fl.Adam())):
        with pytest.raises(TypeError, match=r"^params must be the parameters, model.parameters\(\), .* Got 0.001\.$"):
            make(0.001)


def test_without_torch_it_says_what_to_install_and_what_there_is_without():
    script = ("import sys; sys.modules['torch'] = None\n"
              "try:\n    import fallline.torch\nexcept ImportError as error:\n    print(error)")
    assert run_alone(script).startswith("fallline.torch is for training loops of PyTorch: pip install torch. (")
