"""Samples for callbacks: with the averaged weights, without a trace in training, and as frames."""

import pytest
import torch
from callback_toys import FORM, STEPS, Drawing, ToyRolls, fractal, trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from callbacks.evaluation.generation import averaged_weights, frames_of, generate_samples


def test_the_global_generator_stays(tmp_path):
    module, data = fractal(), ToyRolls()
    run = trainer(tmp_path)
    module.trainer, data.trainer = run, run
    run._data_connector.attach_data(module, datamodule=data)
    before = torch.get_rng_state()
    first = generate_samples(run, module, 0, 2, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (2, 1, FORM.pitches, STEPS)
    assert torch.equal(first, generate_samples(run, module, 0, 2, seed=3))
    assert not torch.equal(first, generate_samples(run, module, 0, 2, seed=4))


def test_frames_of_a_row():
    canvas = torch.arange(4, dtype=torch.uint8).view(2, 1, 1, 2)
    done = torch.tensor([[True, False], [False, True]]).view(2, 1, 1, 2)
    animated = frames_of([(canvas, done), (canvas, torch.ones_like(done))], 1)
    assert [frame.tolist() for frame in animated["frames"]] == [[[[2, 3]]]] * 2
    assert [mask.tolist() for mask in animated["unknown"]] == [[[[True, False]]], [[[False, False]]]]


def test_averaged_weights_go_after_an_error(tmp_path):
    module = Drawing()
    averaging = EMAWeightAveraging(use_buffers=False)
    run = trainer(tmp_path, callbacks=[averaging])
    averaging.setup(run, module, "fit")
    with torch.no_grad():
        averaging._average_model.module.first.weight.fill_(9)

    def fail():
        with averaged_weights(run, module):
            assert module.first.weight.tolist() == [[9, 9]]
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        fail()
    assert module.first.weight.tolist() == [[1, 1]]
