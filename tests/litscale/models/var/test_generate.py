"""Sampling: cache, keyed noise, known tokens, options."""

import pytest
import torch
from golden_var import NAMES, transformer

from litscale.models.var import VAR, VQVAE, VARGeneration, generate
from litscale.models.var.generate import generate_scales

LABELS = torch.tensor([3, 6, 0])


@pytest.fixture(scope="module")
def model():
    return transformer("v0")


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.tokens, second.tokens, strict=True))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_cached_sampling_equals_the_teacher_forced_pass_on_its_own_tokens(name):
    model = transformer(name)
    taken = list(generate_scales(model, LABELS, VARGeneration(cfg=1.5), 5))
    inputs = model.vqvae.quantizer.teacher_input([step.tokens for step in taken])
    both = torch.cat([model(LABELS, inputs), model(None, inputs)])
    torch.testing.assert_close(torch.cat([step.raw for step in taken], 1), both, atol=1e-5, rtol=1e-5)
    images = model.vqvae.tokens_to_images([step.tokens for step in taken])
    torch.testing.assert_close(generate(model, LABELS, seed=5).images, (images + 1) / 2, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cfg", [0, 2.0])
def test_an_image_does_not_depend_on_its_batch(model, cfg):
    whole = generate(model, LABELS, VARGeneration(cfg=cfg), seed=1)
    for i, label in enumerate(LABELS.tolist()):
        alone = generate(model, [label], VARGeneration(cfg=cfg), seed=1, image_index=torch.tensor([i]))
        assert all(torch.equal(a[i], b[0]) for a, b in zip(whole.tokens, alone.tokens, strict=True))
        torch.testing.assert_close(whole.images[i], alone.images[0], atol=1e-5, rtol=0)
    turned = generate(model, LABELS.flip(0), VARGeneration(cfg=cfg), seed=1, image_index=torch.tensor([2, 1, 0]))
    assert all(torch.equal(a, b.flip(0)) for a, b in zip(whole.tokens, turned.tokens, strict=True))


def test_seeds(model):
    assert same(generate(model, LABELS, seed=1), generate(model, LABELS, seed=1))
    assert not same(generate(model, LABELS, seed=1), generate(model, LABELS, seed=2))
    drawn = []
    for torch_seed in (0, 0, 1):
        torch.manual_seed(torch_seed)
        drawn.append(generate(model, LABELS))
    assert same(drawn[0], drawn[1])
    assert not same(drawn[0], drawn[2])
    equal_labels = generate(model, [3, 3], seed=1).tokens[-1]
    assert not torch.equal(equal_labels[0], equal_labels[1])


def test_tokens_are_drawn_from_the_filtered_distribution(model):
    number, options = 3000, VARGeneration(cfg=0, top_k=12, temperature=1.5)
    with torch.no_grad():
        step = next(generate_scales(model, torch.full((number,), 3), options, 3))
    expected = step.logits[0, 0].softmax(-1) * number
    counts = step.tokens.flatten().bincount(minlength=model.vocab)
    kept = expected > 0
    assert kept.sum() == 12
    assert counts[~kept].sum() == 0
    assert ((counts - expected).square() / expected)[kept].sum() < 31.3  # 11 degrees of freedom, p = 0.001
    sharp = (step.raw[0, 0] / 1.5).topk(12).values.softmax(-1)
    torch.testing.assert_close((expected[kept] / number).sort().values, sharp.sort().values)


def test_the_likeliest_tokens(model):
    greedy = generate(model, LABELS, VARGeneration(greedy=True))
    assert same(greedy, generate(model, LABELS, VARGeneration(top_k=1), seed=4))
    assert same(greedy, generate(model, LABELS, VARGeneration(top_p=1e-6), seed=4))
    assert same(greedy, generate(model, LABELS, VARGeneration(temperature=1e-4), seed=4))
    assert not same(greedy, generate(model, LABELS, VARGeneration(top_k=2), seed=4))


def test_without_class(model):
    first = generate(model, None, VARGeneration(cfg=0), seed=0, batch_size=2)
    assert same(first, generate(model, [-1, -1], VARGeneration(cfg=3.0), seed=0))
    assert not same(first, generate(model, [3, 6], VARGeneration(cfg=0), seed=0))


def test_known_tokens_stay_and_the_rest_depends_on_them(model):
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, side**2) for side in model.patch_nums]
    known = [torch.rand(shape, generator=generator) < 0.5 for shape in shapes]
    given = [torch.randint(model.vocab, shape, generator=generator) for shape in shapes]
    other = [torch.where(mask, (entry + 1) % model.vocab, entry) for mask, entry in zip(known, given, strict=True)]
    first, second = (generate(model, LABELS, seed=0, tokens=tokens, known=known) for tokens in (given, other))
    differ = False
    for k, mask in enumerate(known):
        assert torch.equal(first.tokens[k][mask], given[k][mask])
        assert torch.equal(second.tokens[k][mask], other[k][mask])
        differ |= bool((first.tokens[k] != second.tokens[k])[~mask].any())
    assert differ
    for left in (0, -1):
        ignored = [torch.where(mask, entry, left) for mask, entry in zip(known, given, strict=True)]
        assert same(first, generate(model, LABELS, seed=0, tokens=ignored, known=known))
    with pytest.raises(ValueError, match="known must be bool"):
        generate(model, LABELS, tokens=given, known=[mask.long() for mask in known])
    with pytest.raises(ValueError, match="image_index must have the shape of labels"):  # one noise for all images
        generate(model, LABELS, image_index=torch.tensor([5]))


@pytest.mark.parametrize("smooth", [False, True])
def test_all_tokens_known_gives_their_picture(model, smooth):
    tokens = generate(model, LABELS, seed=0).tokens
    known = [torch.ones_like(entry, dtype=torch.bool) for entry in tokens]
    made = generate(model, LABELS, VARGeneration(smooth=smooth), seed=9, tokens=tokens, known=known)
    torch.testing.assert_close(made.images, (model.vqvae.tokens_to_images(tokens) + 1) / 2, atol=1e-5, rtol=0)


def test_smooth_pictures_mix_codes(model):
    plain, smooth = (generate(model, LABELS, VARGeneration(cfg=0, smooth=flag), seed=0) for flag in (False, True))
    assert torch.equal(plain.tokens[0], smooth.tokens[0])
    assert (plain.images - smooth.images).abs().max() > 1e-3
    # with a single code to choose from, the mixture is that code
    alone = [
        generate(model, LABELS, VARGeneration(cfg=0, top_k=1, smooth=flag), seed=0).images for flag in (False, True)
    ]
    torch.testing.assert_close(*alone, atol=1e-5, rtol=0)


def test_pictures_after_each_scale(model):
    made = generate(model, LABELS, seed=0, all_scales=True)
    expected = (model.vqvae.tokens_to_images(made.tokens, all_scales=True) + 1) / 2
    assert made.images_per_scale.shape == (4, 3, 3, 16, 16)
    torch.testing.assert_close(made.images_per_scale, expected, atol=1e-5, rtol=0)
    assert torch.equal(made.images, made.images_per_scale[-1])
    assert made.images.min() >= 0
    assert made.images.max() <= 1
    assert generate(model, LABELS).images_per_scale is None


def test_sampling_in_training_mode_is_without_dropout():
    model = transformer("v0", dropout=0.5, drop_path=0.5, label_drop=1.0)
    expected = generate(model, LABELS, seed=0)
    model.train()
    assert same(generate(model, LABELS, seed=0), expected)
    assert model.training
    assert not any(tensor.requires_grad for tensor in (expected.images, *expected.tokens))


@torch.no_grad()
def test_bfloat16(model):
    tokens = generate(model, LABELS, seed=0).tokens
    known = [torch.ones_like(entry, dtype=torch.bool) for entry in tokens]
    exact = list(generate_scales(model, LABELS, VARGeneration(), 0, tokens=tokens, known=known))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = list(generate_scales(model, LABELS, VARGeneration(), 0, tokens=tokens, known=known))
        assert generate(model, LABELS).images.isfinite().all()
    for a, b in zip(exact, rough, strict=True):
        assert (a.raw - b.raw).abs().mean() < 0.05
        torch.testing.assert_close(a.f_hat, b.f_hat)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cfg": -0.5}, "cfg must not be negative, not -0.5"),
        ({"top_k": -1}, "top_k must not be negative, not -1"),
        ({"top_p": 1.5}, r"top_p must be in 0..1, not 1.5"),
        ({"top_p": -0.1}, r"top_p must be in 0..1, not -0.1"),
        ({"temperature": 0.0}, "temperature must be positive, not 0.0"),
        ({"labels": [7]}, r"labels must be in -1..6, got -?\d..7"),
        ({"labels": torch.tensor([0.5])}, r"labels must be integers \[B\], not torch.float32 \[1\]"),
        ({"labels": torch.tensor([[0]])}, r"labels must be integers \[B\], not torch.int64 \[1, 1\]"),
        ({"tokens": []}, "tokens and known belong together"),
        ({"tokens": [], "known": []}, r"tokens must have the shapes \[\(1, 1\), \(1, 4\), .*, not \[\]"),
    ],
)
def test_bad_options(model, options, message):
    def build():
        chosen = {name: options[name] for name in options.keys() & {"cfg", "top_k", "top_p", "temperature"}}
        given = {name: value for name, value in options.items() if name not in chosen}
        generate(model, **{"labels": [0]} | given, options=VARGeneration(**chosen))

    with pytest.raises(ValueError, match=message):
        build()


def test_known_tokens_of_another_vocabulary(model):
    tokens = [torch.full((1, side**2), 64) for side in model.patch_nums]
    known = [torch.ones_like(entry, dtype=torch.bool) for entry in tokens]
    with pytest.raises(ValueError, match=r"tokens must be in 0..63, the tokenizer's vocabulary"):
        generate(model, [0], tokens=tokens, known=known)


def test_one_scale_only():
    vqvae = VQVAE((4,), vocab=16, dim=8, channels=32, multipliers=(1, 1), blocks=1)
    made = generate(VAR(vqvae, num_classes=2, depth=1), [0, 1], seed=0)
    assert made.tokens[0].shape == (2, 16)
