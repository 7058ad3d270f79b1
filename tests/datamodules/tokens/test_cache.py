"""Token caches: written by a tokenizer, read in training, and what goes wrong."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from var_toys import lit_var, lit_vqvae, quiet, vqvae

from callbacks import TokenWriter
from datamodules import DigitsDataModule, TokenDataModule, TokenizationDataModule
from datamodules.tokens.cache import TokenMetadata, good_shards, read_shard, shard_paths, write_shard

METADATA = TokenMetadata("abc", [1, 2], 40000, 3, {"train": 2})


def tokenization(**options):
    return TokenizationDataModule(DigitsDataModule(size=8, batch_size=32, shift=1), **{"batch_size": 400} | options)


def write(folder, data=None, module=None):
    writer = TokenWriter(str(folder))
    module = lit_vqvae().eval() if module is None else module
    quiet(folder.parent, callbacks=[writer]).predict(
        module, datamodule=data or tokenization(), return_predictions=False
    )
    return module


@given(st.integers(0, 50), st.booleans(), st.sampled_from([2**15 - 1, 39999]), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_shards_come_back(tmp_path_factory, count, with_labels, most, seed):
    folder, random = tmp_path_factory.mktemp("cache"), np.random.default_rng(seed)
    tokens = random.integers(0, most + 1, (count, 5))
    labels = random.integers(0, 3, count) if with_labels else None
    write_shard(folder, "train", 1, tokens, labels)
    shard = read_shard(folder, METADATA, "train", 1, verify=True)
    assert np.array_equal(shard.tokens, tokens)
    assert (shard.labels is None) == (not with_labels)
    if with_labels:
        assert np.array_equal(shard.labels, labels)
    assert shard.tokens.dtype == (np.int16 if not count or tokens.max() < 2**15 else np.int32)
    assert {path.name for path in folder.iterdir()} == {"train_00001.npy", "train_00001.json"}


def test_a_cache_holds_the_tokens_of_the_images(tmp_path):
    module = write(tmp_path / "tokens")
    data = TokenDataModule(str(tmp_path / "tokens"), batch_size=100)
    data.prepare_data()
    data.setup("fit")
    assert data.token_metadata == module.token_metadata()
    assert data.num_classes == 10
    source = DigitsDataModule(size=8, shift=1)
    source.setup("fit")
    (batch, *_), items = data.val_dataloader(), source.val_dataloader().dataset
    canvas = torch.stack([items[i][0]["canvas"] for i in range(100)])
    expected = module.predict_step({"canvas": canvas}, 0)["tokens"]
    assert torch.equal(batch["tokens"], expected)
    assert batch["label"].tolist() == [int(items[i][0]["label"]) for i in range(100)]
    # training items are those of the source's first epoch
    items = source.train_dataloader().dataset
    canvas = torch.stack([items[(0, i)][0]["canvas"] for i in range(5)])
    stored = read_shard(tmp_path / "tokens", data.metadata, "train", 0).tokens[:5]
    assert np.array_equal(stored, module.predict_step({"canvas": canvas}, 0)["tokens"])
    assert len(data.train_dataloader().dataset) == 1259


def test_epochs_differ_by_their_augmentation(tmp_path):
    write(tmp_path / "tokens", tokenization(epochs=2, splits=["train"], batch_size=1259))
    facts = TokenMetadata.read(tmp_path / "tokens")
    assert facts.shards == {"train": 2}
    first, second = (read_shard(tmp_path / "tokens", facts, "train", number) for number in (0, 1))
    assert first.tokens.shape == second.tokens.shape == (1259, 21)
    assert sorted(first.labels) == sorted(second.labels)
    assert not np.array_equal(np.sort(first.tokens, 0), np.sort(second.tokens, 0))


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "tokens"
    module = write(folder)
    names = ["train_00000", "train_00001", "train_00002", "train_00003", "val_00000"]
    assert {path.name for path in folder.iterdir()} == {"index.json"} | {
        f"{n}.{end}" for n in names for end in ("npy", "json")
    }
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "train_00001.json").unlink()
    cut = folder / "train_00003.npy"
    cut.write_bytes(cut.read_bytes()[:-10])
    flipped = bytearray(contents["val_00000.npy"])
    flipped[-3] ^= 1
    (folder / "val_00000.npy").write_bytes(flipped)
    encoded = []
    original = module.predict_step

    def predict_step(batch, batch_idx):
        encoded.append((batch["split"], batch["number"]))
        return original(batch, batch_idx)

    monkeypatch.setattr(module, "predict_step", predict_step)
    write(folder, module=module)
    assert encoded == [("train", 1), ("train", 3), ("val", 0)]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents


def test_training_resumes_in_the_middle_of_an_epoch(tmp_path):
    write(tmp_path / "tokens")

    def loader():
        data = TokenDataModule(str(tmp_path / "tokens"), batch_size=100, seed=3)
        data.setup("fit")
        made = data.train_dataloader()
        made.sampler.set_epoch(2)
        return made

    whole, first = [batch["tokens"] for batch in loader()], loader()
    taken = iter(first)
    begun = [next(taken)["tokens"] for _ in range(5)]
    rest = loader()
    rest.load_state_dict(first.state_dict())
    resumed = begun + [batch["tokens"] for batch in rest]
    assert len(whole) == 12
    assert torch.equal(torch.cat(whole), torch.cat(resumed))
    other = loader()
    other.sampler.set_epoch(1)
    assert not torch.equal(next(iter(other))["tokens"], whole[0])


def test_a_transformer_trains_on_a_cache(tmp_path):
    write(tmp_path / "tokens")
    data = TokenDataModule(str(tmp_path / "tokens"), batch_size=100, source=DigitsDataModule(size=8))
    trainer = quiet(tmp_path, max_steps=2, val_check_interval=2)
    trainer.fit(lit_var(num_classes=10), datamodule=data)
    assert trainer.callback_metrics["val/nats_per_token"] > 0
    predicted = quiet(tmp_path).predict(lit_var(num_classes=10), datamodule=data)
    assert sum(len(batch["canvas"]) for batch in predicted) == 16
    other = vqvae()
    with torch.no_grad():
        other.quantizer.codebook.weight[0, 0] += 1
    for stage in ("fit", "validate"):
        with pytest.raises(
            ValueError, match=r"tokens was written by another tokenizer \(tokenizer is .*write a new cache"
        ):
            getattr(quiet(tmp_path, max_steps=1), stage)(lit_var(other, num_classes=10), datamodule=data)
    with pytest.raises(ValueError, match=r"the data has 10 classes, the network 3"):
        quiet(tmp_path, max_steps=1).fit(lit_var(), datamodule=data)
    with pytest.raises(ValueError, match=r"litscale predict needs data.source"):
        quiet(tmp_path).predict(lit_var(num_classes=10), datamodule=TokenDataModule(str(tmp_path / "tokens")))
    with pytest.raises(ValueError, match=r"has no test split: add it to the splits of TokenizationDataModule"):
        quiet(tmp_path).test(lit_var(num_classes=10), datamodule=data)


def test_a_folder_with_another_cache_is_refused(tmp_path):
    write(tmp_path / "tokens")
    other = lit_vqvae().eval()
    with torch.no_grad():
        other.network.quantizer.codebook.weight[0, 0] += 1
    with pytest.raises(
        ValueError, match=r"holds the tokens of another tokenizer or of other data \(its tokenizer differ\)"
    ):
        write(tmp_path / "tokens", module=other)
    with pytest.raises(ValueError, match=r"\(its shards differ\): give another output_dir, or remove that one"):
        write(tmp_path / "tokens", tokenization(batch_size=300))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path, record: path.write_bytes(path.read_bytes()[:-4]), r"train_00001.npy: damaged"),
        (
            lambda path, record: path.unlink(),
            r"cache is incomplete, .*train_00001.npy is missing: run litscale predict",
        ),
        (lambda path, record: record.unlink(), r"cache is incomplete, .*train_00001.json is missing"),
        (lambda path, record: record.write_text("{"), r"train_00001.json: damaged"),
        (
            lambda path, record: path.write_bytes(path.read_bytes()[:-1] + b"\1"),
            r"damaged or truncated \(its checksum differs\)",
        ),
        (
            lambda path, record: record.write_text(json.dumps(json.loads(record.read_text()) | {"labels": [0, 7]})),
            r"damaged or truncated \(its checksum differs\)",
        ),
        (
            lambda path, record: write_shard(path.parent, "train", 1, np.zeros((2, 5), int), np.array([0, 3])),
            r"the labels in .*train_00001.json are 0 to 3, out of range: the cache has 3 classes",
        ),
        (
            lambda path, record: write_shard(path.parent, "train", 1, np.full((2, 5), 40000), None),
            r"its tokens are 40000 to 40000, the vocabulary has 40000",
        ),
        (
            lambda path, record: write_shard(path.parent, "train", 1, np.zeros((2, 4), int), None),
            r"it holds int16 \[2, 4\], not tokens of \[2, 5\]",
        ),
    ],
)
def test_damaged_shards(tmp_path, spoil, message):
    METADATA.write(tmp_path)
    for number in (0, 1):
        write_shard(tmp_path, "train", number, np.ones((2, 5), int), np.array([0, 1]))
    data = TokenDataModule(str(tmp_path), batch_size=1)
    data.prepare_data()
    spoil(*shard_paths(tmp_path, "train", 1))
    with pytest.raises(ValueError, match=message):
        data.prepare_data()
    assert good_shards(tmp_path, METADATA) == {("train", 0)}


def test_a_truncated_shard_is_found_without_verification(tmp_path):
    METADATA.write(tmp_path)
    for number in (0, 1):
        write_shard(tmp_path, "train", number, np.ones((2, 5), int), np.array([0, 1]))
    path, _ = shard_paths(tmp_path, "train", 1)
    path.write_bytes(path.read_bytes()[:-4])
    data = TokenDataModule(str(tmp_path), batch_size=1, verify=False)
    data.prepare_data()
    with pytest.raises(ValueError, match=r"train_00001.npy: damaged"):
        data.setup("fit")


def test_a_folder_without_a_cache(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"is not a token cache: it has no index.json; write one with litscale pre"
    ):
        TokenDataModule(str(tmp_path)).setup("fit")
    (tmp_path / "index.json").write_text('{"vocab": 3}')
    with pytest.raises(ValueError, match=r"index.json: damaged .* write the cache again"):
        TokenDataModule(str(tmp_path)).setup("fit")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tokenization(splits=["train", "dev"]), r"splits must be among train, val, test, each once"),
        (lambda: tokenization(epochs=0), r"epochs and batch_size must be at least 1, not 0 and 400"),
        (lambda: TokenDataModule("x", batch_size=0), r"batch_size must be at least 1, not 0"),
        (lambda: TokenDataModule("x", seed=-1), r"seed must be at least 0, not -1"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_writer_needs_tokens(tmp_path):
    with pytest.raises(
        Exception, match=r"TokenWriter needs lit_models.LitVQVAE and datamodules.TokenizationDataModule, n"
    ):
        quiet(tmp_path, callbacks=[TokenWriter()]).predict(lit_vqvae(), datamodule=DigitsDataModule(size=8))
