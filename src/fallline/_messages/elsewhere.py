"""What torch, optax, Keras, SciPy and scikit-learn call things, and what there is here in their place."""

from __future__ import annotations

import re

__all__ = ["ATTRIBUTES", "LOOPS", "NAMES", "SAME", "SETTINGS", "SHAPES", "family", "plain", "schedule"]


def plain(name: str) -> str:
    """A name without what libraries differ in.

    >>> plain("clip_grad_norm_"), plain("AdamOptimizer")
    ('clipgradnorm', 'adam')
    """
    name = name.replace("_", "").lower()
    return name.removesuffix("optimizer") or name


# ---- settings of optimizers ------------------------------------------------------------------------------------------

SAME = {  # the first of these that there is
    **dict.fromkeys(("learning_rate", "step_size", "stepsize", "eta", "eta0", "rate", "learning_rate_init", "lrate",
                     "base_lr", "max_lr", "peak_lr", "initial_lr", "alpha0"), ("lr",)),
    "epsilon": ("eps", "adam_eps"),
    "b1": ("beta1", "momentum"), "beta_1": ("beta1", "momentum"), "b2": ("beta2", "rho"), "beta_2": ("beta2", "rho"),
    "b3": ("beta3",), "beta_3": ("beta3",), "beta": ("momentum", "beta", "rho"), "mu": ("momentum", "beta1"),
    "gamma": ("momentum", "rho"), "mom": ("momentum",), "nu": ("beta2",), "alpha": ("rho", "lr"), "rho": ("beta2",),
    "decay": ("rho",), "decay_rate": ("rho",), "smoothing": ("rho",), "smoothing_constant": ("rho",),
    "wd": ("weight_decay",), "weight_decay_rate": ("weight_decay",), "decoupled_weight_decay": ("weight_decay",),
    "momentum": ("beta1",), "trust_coefficient": ("trust",), "initial_accumulator_value": ("eps",),
    # of dialects, whose arguments are not by our names
    "lr": ("learning_rate", "peak", "value", "start"), "beta1": ("beta_1", "b1"), "beta2": ("beta_2", "b2"),
    "beta3": ("b3",), "eps": ("epsilon",),
    "min_step_size": ("min_rate",), "max_step_size": ("max_rate",),
    # of schedules
    **dict.fromkeys(("T_max", "T_0", "total_steps", "decay_steps", "first_decay_steps", "transition_steps", "n_steps",
                     "num_steps", "max_steps", "num_training_steps", "total_iters", "t_max", "epochs"), ("steps",)),
    **dict.fromkeys(("warmup_steps", "num_warmup_steps", "warmup_epochs"), ("warmup",)),
    **dict.fromkeys(("eta_min", "end_value", "min_lr", "end_learning_rate", "final"), ("end", "least")),
    **dict.fromkeys(("init_value", "peak_value", "initial_learning_rate", "start_factor", "max_value"),
                    ("peak", "value", "start")),
}  # fmt: skip

_CLIPPING = "It is a link of a chain: fallline.chain(fallline.{}, ...)."
_HOW = "It only says how {} runs: leave it out."
SETTINGS = {  # sentences
    "maximize": _CLIPPING.format("maximize"),
    **dict.fromkeys(("clipnorm", "global_clipnorm", "clip_norm", "max_norm", "max_grad_norm", "grad_clip_norm",
                     "gradient_clip_norm", "gradient_clip"), _CLIPPING.format("clip_norm(1.0)")),
    **dict.fromkeys(("clipvalue", "clip_value", "clip"), _CLIPPING.format("clip_value(1.0)")),
    **dict.fromkeys(("use_ema", "ema_momentum", "ema_overwrite_frequency", "ema", "ema_decay", "average"),
                    "It is a link of a chain: fallline.chain(..., fallline.average(0.999)), and opt.averaged has it."),
    **dict.fromkeys(("decay", "lr_decay", "decay_steps", "lr_schedule", "schedule", "scheduler", "learning_rate_decay",
                     "decay_rate", "warmup", "warmup_steps", "learning_rate_schedule", "power_t"),
                    "A rate that changes is a schedule: lr=fallline.schedules.cosine(1e-3, steps=10_000)."),
    **dict.fromkeys(("gradient_accumulation_steps", "accumulation_steps", "every_k_schedule"),
                    "It goes around: fallline.accumulate(n, ...)."),
    **dict.fromkeys(("weight_decay_mask", "trust_ratio_mask", "exclude_layers", "exclude_embeddings"),
                    "Settings may differ by leaf: weight_decay=fallline.by_path(function)."),
    "mask": "It goes around: fallline.mask(by, ...), or give the setting by path, fallline.by_path(function).",
    **dict.fromkeys(("foreach", "fused", "capturable", "differentiable"), _HOW.format("torch")),
    **dict.fromkeys(("mu_dtype", "accumulator_dtype", "dtype_momentum", "factored"), _HOW.format("optax")),
    **dict.fromkeys(("name", "jit_compile", "loss_scale_factor", "is_legacy_optimizer"), _HOW.format("Keras")),
    **dict.fromkeys(("verbose", "random_state", "seed", "n_jobs", "dtype", "device"),
                    "Nothing is drawn at random here, and dtype and place are those of the parameters: leave it out."),
    **dict.fromkeys(("steps", "max_iter", "maxiter", "tol", "n_iter", "epochs", "batch_size"),
                    "It is for the loop: fallline.descend(..., steps=...) or fallline.minimize(..., options={...})."),
}  # fmt: skip

# ---- attributes of optimizers ----------------------------------------------------------------------------------------

_TAKES_GRADS = "Gradients are yours and given at each call: opt.step(params, grads)."
ATTRIBUTES = {
    **dict.fromkeys(("zero_grad", "grad", "grads", "gradients", "compute_gradients", "backward"), _TAKES_GRADS),
    **dict.fromkeys(("params", "parameters", "weights", "trainable_variables"),
                    "It holds no parameters: they are given at each call, opt.step(params, grads)."),
    **dict.fromkeys(("apply_gradients", "apply", "apply_updates", "step_and_update", "optimize", "__next__"),
                    "Write opt.step(params, grads)."),
    "param_groups": "Hyper-parameters are opt.hyper and may differ by leaf, lr={\"W\": 1e-3, \"b\": 1e-2} or "
                    "fallline.by_path(function); in a torch loop take fallline.torch.",
    "exclude_from_weight_decay": "Give the decay by path: weight_decay=fallline.by_path(function).",
    "update_step": "A rule of your own is a function: fallline.rule.",
    "from_config": "fallline.load(path) makes an optimizer of a file that opt.save(path) wrote.",
    "add_param_group": "Write opt.adapt(params), with all parameters.",
    **dict.fromkeys(("build", "built", "initialize"), "There is nothing to do: the first step makes state."),
    "init": "The first step makes state. What takes a transformation of optax takes fallline.optax.transform(opt).",
    **dict.fromkeys(("iterations", "step_count", "n_steps", "nit", "epoch", "iteration", "count"), "Steps are opt.t."),
    **dict.fromkeys(("defaults", "get_config", "config", "hyperparams", "hyperparameters", "settings", "get_params_"),
                    "Hyper-parameters are opt.hyper."),
    **dict.fromkeys(("variables", "slots", "get_slot", "opt_state", "get_weights", "state_"),
                    "State is opt.state, by slot; opt.state_dict() has copies."),
    **dict.fromkeys(("set_weights", "load_own_variables"), "Write opt.load_state_dict(d)."),
    **dict.fromkeys(("get_lr", "get_last_lr", "current_lr"), "Write opt.lr, of a schedule opt.lr(opt.t)."),
    **dict.fromkeys(("minimize", "fmin"), "Write fallline.minimize(fun, x0, method=opt)."),
    **dict.fromkeys(("fit", "run", "train", "solve", "descend"),
                    "Write fallline.descend(value_and_grad, params, opt, steps=...)."),
    **dict.fromkeys(("copy", "clone"), "Write copy.deepcopy(opt), or opt.fresh() for one without state."),
    **dict.fromkeys(("history", "losses", "loss"), "fallline.descend keeps the values of a run: its result's history."),
    **dict.fromkeys(("plot", "show"), "fallline.schedules.plot(opt.lr) draws schedules, fallline.race what steps do."),
    **dict.fromkeys(("to", "cuda", "cpu", "numpy"), "State lies where the parameters lie."),
}  # fmt: skip

# ---- arguments of the loops ------------------------------------------------------------------------------------------

_OF_OPTIMIZER = "It is a setting of the optimizer: {}fallline.Adam({}=...)."
_RATES = ("lr", "learning_rate", "step_size", "stepsize", "eta", "rate", "alpha")
_OTHERS = ("beta1", "beta2", "eps", "momentum", "weight_decay", "betas", "nesterov")
LOOPS = {
    "minimize": {
        **dict.fromkeys(_RATES, _OF_OPTIMIZER.format("method=", "lr")),
        **{name: _OF_OPTIMIZER.format("method=", name) for name in _OTHERS},
        **dict.fromkeys(("maxiter", "max_iter", "maxfev", "maxfun", "steps", "n_steps", "iterations", "num_steps",
                         "niter", "epochs", "max_steps", "n_iter", "nsteps"), "Write options={\"maxiter\": ...}."),
        **{name: f"Write options={{\"{name}\": ...}}." for name in ("gtol", "ftol", "xtol", "disp", "return_all",
                                                                  "finite_diff_rel_step")},
        **dict.fromkeys(("verbose", "display", "iprint"), "Write progress=True or options={\"disp\": True}."),
        **dict.fromkeys(("tolerance", "atol", "rtol", "eps_g"), "Write tol=..., which is options={\"gtol\": ...}."),
        **dict.fromkeys(("optimizer", "opt", "solver", "algorithm"), "Write method=..."),
        **dict.fromkeys(("grad", "gradient", "fprime", "derivative", "jacobian", "g"), "Write jac=..."),
        **dict.fromkeys(("value_and_grad", "has_grad", "return_grad"), "Write jac=True for a function of both."),
        **dict.fromkeys(("func", "f", "objective", "function", "loss", "loss_fn"), "Write fun=..."),
        **dict.fromkeys(("x", "params", "initial", "start", "init_params", "guess", "p0", "w0"), "Write x0=..."),
        **dict.fromkeys(("callbacks", "hook", "hooks"), "Write callback=..., one function."),
    },
    "descend": {
        **dict.fromkeys(_RATES, _OF_OPTIMIZER.format("", "lr")),
        **{name: _OF_OPTIMIZER.format("", name) for name in _OTHERS},
        **dict.fromkeys(("maxiter", "max_iter", "n_steps", "num_steps", "iterations", "n_iter", "niter", "max_steps",
                         "nsteps", "max_iterations", "iters"), "Write steps=..."),
        **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "max_epochs"),
                        "Write steps=..., of which an epoch has len(batches)."),
        **dict.fromkeys(("data", "dataset", "loader", "dataloader", "train_loader", "X", "x_train", "batch_size",
                         "shuffle"), "Write batches=..., a list of batches or a function of the step number."),
        **dict.fromkeys(("callbacks", "hook", "hooks", "on_step"), "Write callback=..., one function of a point."),
        **dict.fromkeys(("verbose", "disp", "display", "progress_bar", "tqdm"), "Write progress=True or False."),
        **dict.fromkeys(("tol", "gtol", "ftol", "tolerance", "atol"),
                        "It ends by target=..., patience=... or the callback; fallline.minimize has tolerances."),
        **dict.fromkeys(("early_stopping", "n_iter_no_change", "wait"), "Write patience=..."),
        **dict.fromkeys(("method", "opt", "solver"), "Write optimizer=..."),
        **dict.fromkeys(("fun", "f", "func", "loss", "loss_fn", "objective", "value_and_gradient", "grad", "jac"),
                        "Write value_and_grad=..., one function that returns both."),
        **dict.fromkeys(("x0", "x", "w", "weights", "model", "init_params", "parameters"), "Write params=..."),
        **dict.fromkeys(("save", "checkpoint_path", "path", "resume", "save_path"), "Write checkpoint=path."),
        **dict.fromkeys(("save_every", "checkpoint_freq"), "Write checkpoint_every=..."),
        **dict.fromkeys(("log", "csv", "metrics", "logger"), "Write history=path, and columns={name: function}."),
        "args": "Write a function that has them, such as lambda params: f(params, *args).",
        "options": "Write them as arguments of their own.",
    },
}  # fmt: skip

# ---- names of the package --------------------------------------------------------------------------------------------

NAMES = {
    "clip": "clip_value or clip_norm", "clip_by_value": "clip_value", "clip_grad_value": "clip_value",
    "clip_grad_norm": "clip_norm", "clip_by_global_norm": "clip_norm", "clip_grad": "clip_norm",
    "clip_grads_with_norm": "clip_norm", "add_decayed_weights": "weight_decay", "l2_regularization": "l2",
    "ema": "average", "swa": "average", "swalr": "average", "averaged_model": "average", "polyak_averaging": "average",
    "exponential_moving_average": "average", "moving_average": "average", "asgd": "average",
    "update_bn": "average", "swap_ema_weights": "average",
    "multi_transform": "partition", "transforms": "partition", "selective_transform": "partition",
    "multi": "partition", "optimizer_map": "partition", "param_groups": "partition",
    "masked": "mask", "masked_node": "mask", "freeze": "mask", "set_to_zero": "mask", "conditionally_mask": "mask",
    "multi_steps": "accumulate", "gradient_accumulation": "accumulate", "apply_every": "accumulate",
    "microbatch": "accumulate", "nag": "Nesterov", "nesterov_momentum": "Nesterov", "heavy_ball": "Momentum",
    "msgd": "Momentum", "trace": "Momentum", "optim": "OPTIMIZERS", "optimizers": "OPTIMIZERS", "fit": "descend",
    "fmin": "minimize", "fmin_cg": "minimize", "train": "descend", "save": "Optimizer.save",
    "gradient_descent": "SGD", "gd": "SGD", "lookahead": "Momentum.lookahead", "lookahead_params": "Momentum.lookahead",
    "problem": "race.Problem", "run": "race.run", "compare": "race.run", "benchmark": "race.run",
    "named_chain": "chain", "sequential": "chain", "compose": "chain", "gradient_transformation": "rule",
    "global_norm": "norm", "safe_norm": "norm", "get_total_norm": "norm", "scale": "SGD",
    "nonneg": "NonNegative", "project_bounds": "bounds", "keep_params_nonnegative": "bounds", "projections": "bounds",
    "schedule": "schedules", "lr_scheduler": "schedules", "scheduler": "schedules", "set_threads": "set_num_threads",
    "early_stopping": "descend", "value_and_grad_from_state": "descend",
}  # fmt: skip

SHAPES = {  # of schedules, by what their names have in them, in this order
    "restart|sgdr": "cosine_restarts", "onecycle|cyclic": "one_cycle", "cosine": "cosine", "plateau": "plateau",
    "multistep|piecewiseconstant|milestone": "piecewise", "^step": "step", "exponential": "exponential",
    "linear": "linear", "poly": "polynomial", "invers(e)?sqrt|noam|rsqrt": "inverse_sqrt",
    "sequential|join|chained|interpolate": "join", "warmupstable|wsd": "warmup_stable_decay", "constant": "constant",
}  # fmt: skip
_ANY_SCHEDULE = ("Any function of the number of completed steps is a schedule: lr=lambda t: 1e-3/(1 + t/100); "
                 "fallline.schedules has the usual ones.")  # fmt: skip


def schedule(name: str, always: bool = False) -> str:
    """What to write for another library's schedule, as a sentence; "" if the name is not that of one.

    >>> schedule("CosineAnnealingLR")
    'Did you mean schedules.cosine?'
    """
    said = name.replace("_", "").lower()
    if not always and not re.search(r"lr$|schedul|decay|anneal|restart|onecycle|plateau|warmup", said):
        return ""
    shape = next((own for words, own in SHAPES.items() if re.search(words, said)), None)
    return f"Did you mean schedules.{shape}?" if shape else "" if always else _ANY_SCHEDULE


_OWN_LINKS = "Rules are whole formulas here, not links that scale: fallline.rules has them, fallline.rule is for yours."
FAMILIES = {  # by what their names have in them, in this order
    r"^(as)?transform$": "A transformation of optax is fallline.optax.transform(opt).",
    r"lossscale|gradscaler|mixedprecision": "float16 and bfloat16 parameters are computed in float32 as they are.",
    r"state$|emptystate|initempty|optstate|treemapparams": "State is opt.state, by slot, and opt.state_dict().",
    r"bfgs|newton|linesearch|powell|neldermead|trust(region|constr|ncg|krylov|exact)|conjugategradient|cobyla|slsqp|"
    r"leastsq|lsqlinear|curvefit|nnls|evolution|basinhopping|dualannealing|secondorder|rosen|fsolve|brent|bisect|ridder|"
    r"golden|brute|shgo|broyden|jacobian|krylov|anderson|linprog|milp|approxfprime|checkgrad|constraint|minimizescalar|"
    r"fixedpoint|fminbound|direct$|isotonic|hessian|sr1$|toms748|rootscalar|rootresults|optimize(result|warning)|bracket|"
    r"linearmixing|excitingmixing|noconvergence|quadraticassignment|showoptions":
        "It is SciPy's: scipy.optimize has it, as it has minimize(..., method=\"L-BFGS-B\").",
    r"loss|entropy|divergence|cosine(distance|similarity)|logcosh|squarederror|ntxent|smoothlabels|multinormal|"
    r"perturbations|poweriteration|matrixinverse":
        "Losses and models are yours: fallline begins at the gradient.",
    r"applyupdates|incrementalupdate|periodicupdate":
        "Write w = opt.step(w, g), or w += opt.update(g).",
    r"injecthyperparams|injectstateful":
        "Hyper-parameters can be set at any time: opt.lr = 1e-4.",
    r"applyiffinite|skipnotfinite|skiplarge|zeronans|terminateonnan":
        "An optimizer takes nonfinite=\"skip\": fallline.Adam(nonfinite=\"skip\").",
    r"^scaleby|^transform|^gradienttransf|^normalizeby|statelesswith|^stateless|^identity$|centralize|addnoise|"
    r"adaptivegradclip|clipbyblock|perexample|noisysgd|conditionally|biascorrection|updatemoment|updateinfinity|"
    r"withextraargs|scalegradient|addextra|paramblock|^monitor|snapshot|measurewith|maskorfn|^updates$":
        _OWN_LINKS,
    r"^(get)?(ema|swa)|ema(model|weights)$|averaged": "Did you mean average?",
    r"zerograd|parametergroup|swapin": "Gradients and parameters are given at each call: opt.step(params, grads).",
    r"callback|logger|checkpoint|backup|tensorboard|history|remotemonitor":
        "fallline.descend takes callback=, history=, checkpoint= and patience=.",
    r"^(de)?serialize$|^get$": "A class is its name here, fallline.Adam; fallline.OPTIMIZERS has all by name.",
    r"sparse": "Gradients are dense arrays here: g.to_dense() of torch, g.toarray() of SciPy.",
    r"tree|flatten": "Trees of dicts, lists and tuples are taken as they are: opt.step(params, grads).",
    r"signum|fromage|optimistic|polyaksgd|signsgd|sm3|adashift|adabound|sophia|shampoo|^soap|swats|dadapt|tiger|ranger|lookahead":
        "fallline.OPTIMIZERS has those that there are; what is missing is a rule of a few lines: fallline.rule.",
    r"^safe(int32)?increment|saferoot|shouldskip": "The words of formulas are those of fallline.ops.",
}  # fmt: skip


def family(name: str) -> str:
    """What to write for one of many names of a kind, as a sentence; "" for others."""
    said = name.replace("_", "").lower()
    return next((sentence for words, sentence in FAMILIES.items() if re.search(words, said)), "")
