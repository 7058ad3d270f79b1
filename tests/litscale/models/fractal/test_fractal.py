"""The recursion as a whole: overfitting, options, precision, bad input."""

import pytest
import torch

from litscale.models.fractal import Fractal, Generation, attention_report, generate

MIXES = [["ar", "ar"], ["mar", "mar"], ["ar", "mar"], ["mar", "ar"]]


def small(generators, **options):
    torch.manual_seed(0)
    options = {"codec": "onset_hold", "velocity_bins": 1, "scan": "column_major"} | options
    return Fractal([(8, 8), (8, 1), (1, 1)], generators, [64, 32, 32], [2, 2, 1], [4, 4, 4], **options)


@pytest.mark.slow
@pytest.mark.parametrize("generators", MIXES)
def test_overfits_four_windows_and_gives_them_back(generators):
    model = small(generators, num_classes=4, label_drop=0.0, mask_std=0.5)
    canvas = torch.randint(0, 3, (4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    label = torch.arange(4)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=200)
    batch, batch_label = canvas.repeat(4, 1, 1, 1), label.repeat(4)
    for _ in range(200):
        optimizer.zero_grad()
        model(batch, batch_label).loss.backward()
        optimizer.step()
        schedule.step()
    assert model.nll(canvas, label, passes=8).max() / 8 < 0.15
    drawn = generate(model, label, Generation(iterations=8, temperature=0.5), seed=0)
    assert torch.equal(drawn, canvas)


@pytest.mark.parametrize("generators", MIXES)
def test_same_seed_same_sample(generators):
    model = small(generators)
    state = torch.get_rng_state()
    first = generate(model, options=Generation(iterations=2), batch_size=2, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, generate(model, options=Generation(iterations=2), batch_size=2, seed=4))
    assert not torch.equal(first, generate(model, options=Generation(iterations=2), batch_size=2, seed=5))


@pytest.mark.parametrize("generators", MIXES)
def test_gradient_checkpointing_changes_nothing(generators):
    canvas = torch.randint(0, 3, (2, 1, 8, 8), dtype=torch.uint8)
    gradients = []
    for on in (False, True):
        model = small(generators, grad_checkpointing=on, proj_dropout=0.1)
        torch.manual_seed(1)
        model(canvas).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize("generators", MIXES)
def test_bf16_autocast_stays_close(generators):
    model = small(generators, guiding=True)
    canvas = torch.randint(0, 3, (4, 1, 8, 8), dtype=torch.uint8)
    losses = []
    for on in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            loss = model(canvas).loss
            loss.backward()
            assert generate(model, batch_size=1, seed=0).shape == (1, 1, 8, 8)
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_label_drop_applies_in_training_only():
    model = small(["ar", "ar"], num_classes=2, label_drop=1.0)
    canvas, label = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])
    blank = model(canvas).loss
    assert torch.equal(model.train()(canvas, label).loss, blank)
    assert not torch.equal(model.eval()(canvas, label).loss, blank)


def test_parameters_by_level_are_a_partition():
    model = small(["ar", "mar"], num_classes=3, guiding=True)
    groups = model.parameters_by_level()
    assert list(groups) == ["level_0", "level_1", "leaf"]
    listed = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())


def test_entropy_is_measured_on_request():
    model = small(["ar", "ar"])
    canvas = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    assert model(canvas).entropy is None
    assert 0 < model(canvas, with_entropy=True).entropy.item() < 1.0987


def test_attention_report_is_bounded():
    report = attention_report(small(["mar", "ar"]), torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    assert report.keys() == {"level_0", "level_1"}
    for attention in report.values():
        assert attention.entropy.shape == (2, 4)
        assert (attention.entropy >= 0).all()
        assert (attention.entropy <= torch.tensor(9.0).log()).all()
        assert (attention.reach <= 7).all()
        assert (attention.reach > 0).all()


GOOD = {
    "sizes": [(8, 8), (4, 4), (1, 1)],
    "generators": ["ar", "mar"],
    "widths": [16, 16, 16],
    "blocks": [1, 1, 1],
    "heads": [2, 2, 2],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [16, 16]}, "widths has 2 entries, but 2 generators and a leaf need 3"),
        ({"sizes": [(8, 8), (1, 1)]}, "sizes has 2 entries"),
        ({"generators": ["ar", "gan"]}, "generators must be among ar, mar, not 'gan'"),
        ({"sizes": [(8, 8), (3, 4), (1, 1)]}, "a patch of 3x4 does not divide a canvas of 8x8"),
        ({"sizes": [(8, 8), (4, 4), (2, 1)]}, r"the last of sizes must be \[1, 1\]"),
        ({"codec": "midi"}, "codec must be one of rgb, gray, binary, velocity, onset_hold, not 'midi'"),
        ({"velocity_bins": 0}, "velocity_bins must be in 1..127"),
        ({"scan": "zigzag"}, "scan must be among row_major, column_major"),
        ({"scan": ["row_major"]}, "scan has 1 entry for 2 levels"),
        ({"positions": "sine"}, "positions must be among learned, rope, both"),
        ({"heads": [3, 2, 2]}, r"heads\[0\], 3, does not divide widths\[0\], 16"),
        ({"heads": [2, 2, 0]}, r"heads\[2\], 0, does not divide widths\[2\], 16"),
        ({"heads": [2, -2, 2]}, r"heads\[1\], -2, does not divide widths\[1\], 16"),
        ({"widths": [0, 16, 16]}, r"heads\[0\], 2, does not divide widths\[0\], 0"),
        ({"guiding": True, "guide_heads": 3}, "guide_heads, 3, does not divide guide_width, 128"),
        ({"heads": [2, 8, 2]}, r"widths\[1\] / heads\[1\] is 2, but positions rope and both need a multiple of 4"),
        ({"widths": [6, 16, 16], "positions": "rope"}, r"widths\[0\] / heads\[0\] is 3, but positions rope and both"),
        ({"channel_weights": [1.0, 2.0]}, "channel_weights needs 1 numbers"),
        ({"generators": [], "sizes": [(1, 1)], "widths": [8], "blocks": [1], "heads": [2]}, "generators is empty"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(ValueError, match=message):
        Fractal(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"iterations": [1]}, "iterations has 1 entry for 2 levels"),
        ({"order": "spiral"}, "order must be among"),
        ({"cfg": 2.0}, "cfg 2.0 needs a network with classes"),
        ({"cfg_schedule": "cosine"}, "cfg_schedule must be among"),
        ({"filter_threshold": 2.0}, "filter_threshold must be in 0..1"),
        ({"label": torch.tensor([0])}, "labels were given to a model without classes"),
        ({"known": torch.zeros(1, 1, 8, 8, dtype=torch.bool)}, "known needs the canvas"),
    ],
)
def test_bad_sampling_options(options, message):
    request = {name: options.pop(name) for name in ("label", "known") if name in options}
    with pytest.raises(ValueError, match=message):
        generate(Fractal(**GOOD), options=Generation(**options), **request)


def test_bad_batches():
    model = Fractal(**GOOD, num_classes=2)
    with pytest.raises(ValueError, match=r"a canvas of codec 'onset_hold' is \[B, 1, H, W\]"):
        model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="does not divide a canvas of 8x7"):
        model(torch.zeros(1, 1, 8, 7, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"labels must be in -1..1, got 5..5"):
        model(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([5]))
    for label in (torch.tensor([1.0]), torch.tensor([[1]]), torch.tensor([True])):
        with pytest.raises(ValueError, match=r"labels must be integers \[B\], not torch\.(float32|int64|bool) \[1"):
            model(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), label)
