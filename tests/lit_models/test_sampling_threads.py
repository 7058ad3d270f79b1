"""Threads that generation takes, and what is left of it afterwards."""

import pytest
import torch
from sdvar_lit_toys import lit_sdvar
from torch import nn
from var_toys import lit_var

from lit_models import LitVAR
from lit_models.sampling_threads import limited_threads, width_of
from litscale.models.fractal import Fractal


@pytest.fixture(autouse=True)
def _three_threads(one_thread):
    torch.set_num_threads(3)  # which `one_thread` takes back


def seen_in(network, run):
    """The number of threads in passes of a network while something runs, which must be the same in all of them."""
    seen = set()
    linear = next(layer for layer in network.modules() if isinstance(layer, nn.Linear))
    handle = linear.register_forward_hook(lambda *given: seen.add(torch.get_num_threads()))
    run()
    handle.remove()
    (number,) = seen
    return number


@pytest.mark.parametrize(("option", "number"), [(None, 1), (2, 2)])
@pytest.mark.parametrize("kind", ["fractal", "var", "sdvar"])
def test_narrow_networks_generate_with_one_thread_unless_another_number_is_given(toy_module, kind, option, number):
    makers = {"fractal": toy_module, "var": lit_var, "sdvar": lit_sdvar}
    module = makers[kind]()
    module.sampling_threads = option
    network = module.target if kind == "sdvar" else module.network
    assert seen_in(network, lambda: module.generate(batch_size=1, seed=0)) == number
    assert torch.get_num_threads() == 3


def test_the_comparison_of_decoders_takes_them_too():
    module = lit_sdvar(sampling_threads=2)
    labels = torch.zeros(1, dtype=torch.long)
    assert seen_in(module.target, lambda: module.compare(labels, labels, 0)) == 2


@pytest.mark.parametrize(("width", "number"), [(1020, 1), (1024, 3)])
def test_wide_networks_leave_the_number_as_it_is(width, number):
    network = Fractal([(4, 4), (2, 2), (1, 1)], ["ar", "ar"], [16, width, 16], [1] * 3, [2] * 3, positions="learned")
    assert width_of(network) == width
    with limited_threads(network, None):
        assert torch.get_num_threads() == number
    assert width_of(nn.Identity()) == 0


def test_the_number_comes_back_after_an_error():
    with pytest.raises(RuntimeError), limited_threads(nn.Linear(2, 2), 1):
        raise RuntimeError
    assert torch.get_num_threads() == 3


def test_bad_options():
    with pytest.raises(ValueError, match="sampling_threads must be at least 1, or null, not 0"):
        LitVAR(lit_var().network, sampling_threads=0)
