"""One optimizer on many ranks (MPI): the same bits on any number of them, one checkpoint, one norm.

It needs the extra `mpi` (mpi4py) and an MPI library; `pip install mpich` has one for a machine without. Start a job by
`mpiexec -n 4 python -m mpi4py script.py`: without `-m mpi4py` an exception on one rank leaves the others waiting.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

try:
    from mpi4py import MPI
except ImportError as error:
    raise ImportError('fallline.mpi needs mpi4py and an MPI library: pip install "fallline[mpi]", and where there is '
                      f"no MPI pip install mpich. ({error})") from None

from fallline._messages.values import brief
from fallline._optimizer.division import takes_shape
from fallline._optimizer.optimizer import Optimizer
from fallline.mpi.data import DataParallel
from fallline.mpi.domain import Domain, among

__all__ = ["DataParallel", "data_parallel", "domain_parallel", "load"]

Kind = TypeVar("Kind", bound=Optimizer)
_OURS = MPI.Comm.Create_keyval()


def domain_parallel(opt: Kind, comm: Any = None, offsets: Any = None, *, replicated: Collection[str] = ()) -> Kind:
    """The optimizer for parameters that are divided among ranks, each of which has a part of every leaf.

    Parameters
    ----------
    opt: an optimizer, chain or partition, or a class of one, that has not stepped; it is left alone.
    comm: an `mpi4py.MPI.Intracomm`; None: COMM_WORLD. Messages go by a duplicate of it.
    offsets: the first coordinate of this rank's part of each leaf, a tree of whole numbers like the parameters, or one
        number for a single array; None: the parts are stacked in the order of ranks.
    replicated: paths of leaves that are on every rank, with the same numbers and gradients: they count once in sums.

    Each rank passes its own parts of parameters and gradients. A part is a contiguous range of the coordinates of the
    leaf in C order: a stretch of a vector, or a slab of a grid, cut along its first axis; it may be empty. A rule of
    whole leaves (Muon, Adafactor) needs each leaf whole on one rank, and empty on the others. Arrays lie in host
    memory, as `Optimizer.step` takes them; others do where nothing is summed.

    Returns an optimizer of the same class, without state. All ranks make the same calls of it, in the same order, with
    None for the gradients of the same leaves: `step`, `update`, `flush`, `save`, `load` and `fallline.descend` wait for
    each other. Settings, `t` and numbers of the state are the same on all; arrays of settings by coordinate are a
    rank's own, as `state` and `state_dict` are. Whatever one rank refuses, all do, with its words.

    Parameters, state and files have the bits of one process with the whole leaves: norms too, as blocks of 4,096
    coordinates are summed where they begin, and their sums added up by all. That is one message of 24 bytes a call, and
    24 bytes for 4,096 coordinates where there is a norm.

    Raises TypeError or ValueError for what is no such optimizer or communicator. The first step raises ValueError for
    parts that leave gaps or overlap.

    >>> import numpy as np, fallline as fl
    >>> opt = fl.mpi.domain_parallel(fl.chain(fl.clip_norm(1.0), fl.Adam(0.1)))
    >>> opt.step(np.ones(3), np.array([3.0, -4.0, 0.0])).round(2).tolist()
    [0.9, 1.1, 1.0]
    """
    if isinstance(opt, type) and issubclass(opt, Optimizer):
        opt = opt()
    if not isinstance(opt, Optimizer):
        raise TypeError(f"domain_parallel takes an optimizer such as fallline.Adam(1e-3). Got {brief(opt)}.")
    if opt.t or opt.calls or any(holder.group or holder.waiting for holder in opt._stepper.holders.values()):
        raise ValueError("domain_parallel takes an optimizer that has not stepped, and has no state: to go on on "
                         "several ranks, opt.save(path, params) and fallline.mpi.load(path).")
    if isinstance(replicated, str):
        raise TypeError(f"replicated of domain_parallel must be a list of paths. Got {replicated!r}: write "
                        f"[{replicated!r}].")
    return among(Domain(own(comm), offsets, replicated), opt.fresh())


def data_parallel(opt: Optimizer | type[Optimizer], comm: Any = None, batches: int = 8) -> DataParallel:
    """The optimizer for parameters that are on all ranks, where each has the gradients of its mini-batches.

    Each rank keeps the state of 1/n of the coordinates, and steps these (ZeRO-1): gradients are summed where they are
    needed, and the parameters gathered. The bits are those of one rank with the same batches, on any number of ranks.

    Parameters
    ----------
    opt: an optimizer, chain or partition, or a class of one, that has not stepped; of rules by coordinate. Labels of a
        partition, and masks, go by path; settings are no arrays by coordinate.
    comm: as of `domain_parallel`.
    batches: in how many mini-batches the gradient of a step comes on all ranks together: a power of two, and no fewer
        than ranks. Their gradients are summed up one binary tree. With a number of ranks that is no power of two some
        have more of them than others, and more is sent.

    Returns a `DataParallel`: `opt.step(params, grads)` with the gradients of the batches `opt.mine`.

    Raises TypeError or ValueError for what cannot be so stepped.

    >>> import numpy as np, fallline as fl
    >>> opt, w = fl.mpi.data_parallel(fl.SGD(1.0), batches=4), np.zeros(2)
    >>> opt.step(w, (np.full(2, float(batch)) for batch in opt.mine)).tolist()
    [-1.5, -1.5]
    """
    if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1 or batches & (batches - 1):
        raise ValueError(f"batches of data_parallel must be a power of two. Got {brief(batches)}.")
    found: Any = domain_parallel(opt, comm)  # type: ignore[type-var]
    stepper = found._stepper
    if batches < stepper.others.size:
        raise ValueError(f"batches of data_parallel must be no fewer than the {stepper.others.size} ranks. "
                         f"Got {batches}.")
    for holder in stepper.holders.values():
        if holder.chain.rule.whole_leaf:
            raise TypeError(f"data_parallel cuts leaves anywhere, and {holder.chain.title} is a function of whole "
                            "leaves: use domain_parallel, with each leaf on one rank.")
    if stepper.division.asks and takes_shape(stepper.division.label):
        raise TypeError("data_parallel cuts leaves anywhere, so that a label cannot go by their shapes: let it go by "
                        "path, or give a tree of labels.")
    return DataParallel(found, batches)


def load(path: str | os.PathLike[str], comm: Any = None, ranges: Any = None, *, replicated: Collection[str] = (),
         rules: Sequence[Any] = (), **hyper: Any) -> Any:
    """The optimizer of a checkpoint over the ranks of a communicator, with this rank's part of its parameters.

    Parameters
    ----------
    path: a file that `opt.save` wrote, on any number of ranks or in one process; all of them read it.
    comm, replicated: as of `domain_parallel`.
    ranges: (start, stop), the coordinates of this rank's part, of each leaf in a dict by its path where there are
        several. None, or no entry: of an array the rows along its first axis are shared out evenly, in the order of
        ranks; of a rule of whole leaves each leaf has one owner; a number (0-d) is on every rank.
    rules, **hyper: as of `fallline.load`.

    Returns the optimizer, or (optimizer, params): of each leaf the rows of the range where it consists of whole ones,
    else its coordinates (1-D). A rank reads its own part of the state, and no more.

    Raises what `fallline.load` raises, ValueError for ranges that are none or leave gaps; on all ranks alike.

    >>> import os, tempfile, numpy as np, fallline as fl
    >>> opt, w = fl.Adam(0.1), np.ones(4)
    >>> w = opt.step(w, w)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     opt.save(os.path.join(folder, "run.safetensors"), w)
    ...     again, part = fl.mpi.load(os.path.join(folder, "run.safetensors"))
    >>> again.t, part.round(2).tolist()
    (1, [0.9, 0.9, 0.9, 0.9])
    """
    from fallline.mpi.loading import loaded

    others = Domain(own(comm), None, replicated)
    return others.together(loaded, others, path, ranges, rules, hyper)


def own(comm: Any) -> Any:
    """The duplicate of a communicator that fallline's messages go by, one for all optimizers."""
    comm = MPI.COMM_WORLD if comm is None else comm
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise TypeError(f"comm must be an mpi4py.MPI.Intracomm. Got {brief(comm)}.")
    found = comm.Get_attr(_OURS)
    if found is None:
        found = comm.Dup()
        comm.Set_attr(_OURS, found)
    return found
