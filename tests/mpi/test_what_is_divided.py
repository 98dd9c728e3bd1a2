"""What can be divided among ranks, and what is refused by name."""

import pytest

import fallline as fl
from needed import need


def test_what_cannot_be_cut_anywhere_is_refused_by_name():
    need("mpi4py")
    with pytest.raises(TypeError, match="function of whole leaves"):
        fl.mpi.data_parallel(fl.Muon)
    with pytest.raises(ValueError, match="power of two"):
        fl.mpi.data_parallel(fl.Adam, batches=6)
    with pytest.raises(TypeError, match="by their shapes"):
        fl.mpi.data_parallel(fl.mask(lambda path, shape: True, fl.Adam()))
    with pytest.raises(TypeError, match="C-contiguous"):
        fl.mpi.data_parallel(fl.Adam).step([1.0], [])


def test_an_optimizer_for_ranks_is_a_fresh_one_of_the_same_class():
    need("mpi4py")
    opt = fl.mpi.domain_parallel(fl.Adam(0.5))
    assert type(opt) is fl.Adam
    assert opt.lr == 0.5
    stepped = fl.Adam()
    stepped.step(1.0, 1.0)
    with pytest.raises(ValueError, match=r"fallline\.mpi\.load"):
        fl.mpi.domain_parallel(stepped)
    for wrong in (3, "Adam", fl.rules.adam):
        with pytest.raises(TypeError, match="takes an optimizer"):
            fl.mpi.domain_parallel(wrong)
    with pytest.raises(TypeError, match="Intracomm"):
        fl.mpi.domain_parallel(fl.Adam, comm=0)
    with pytest.raises(TypeError, match="list of paths"):
        fl.mpi.domain_parallel(fl.Adam, replicated="W")
