"""Counts, rates, FID, pictures and files of TargetCalls, on one process and on two."""

import json
from pathlib import Path

import pytest
import torch
from callback_toys import TwoLevels, trainer
from decode_toys import SCALES, Comparing, comparison, keys
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from quality_toys import Bright, Images, ToyImages
from rank_runs import two_ranks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import offline_history

from callbacks import TargetCalls
from lit_models.speculative.comparison import no_totals, rates


def expected(count=11):
    """What the toys' images give."""
    numbers = [keys(Images(count)[k]["canvas"][None])[0] for k in range(count)]
    even = sum(number % 2 == 0 for number in numbers)
    odd = count - even
    assert even > 1 < odd
    calls = even + 2 * odd
    return {
        "sdvar/images": count,
        "sdvar/target_calls": calls,
        "sdvar/draft_calls": 2 * count,
        "sdvar/accepted_scales": 2 * even + odd,
        "sdvar/target_calls_per_image": calls / count,
        "sdvar/draft_calls_per_image": 2,
        # the toys record no passes
        **dict.fromkeys(("sdvar/target_tokens_per_image", "sdvar/draft_tokens_per_image", "sdvar/gflops_per_image"), 0),
        "sdvar/accepted_scales_per_call": (2 * even + odd) / calls,
        "sdvar/ms_per_image": 500,
        "sdvar/target_only_ms_per_image": 1500,
        "sdvar/speedup": 3,
        "sdvar/token_agreement": (even + 0.5 * odd) / count,
        "sdvar/pixel_difference": 0.5 * odd / count,
        "sdvar/acceptance/scale_0": 1,
        "sdvar/acceptance/scale_1": even / count,
    }


def seen(run):
    """Logged numbers of a trainer."""
    return {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("sdvar/")}


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_counts_rates_and_files(tmp_path, stage, capsys):
    run = trainer(tmp_path, callbacks=[TargetCalls()])
    getattr(run, stage)(Comparing(), ToyImages(), verbose=False)
    assert seen(run) == pytest.approx(expected(), rel=1e-6)
    found = json.loads((tmp_path / f"decode_{stage}.json").read_text())
    label = "speculative (gamma 2, TopK)"
    assert found["rows"][label]["target_calls"] == expected()["sdvar/target_calls"]
    assert found["rows"]["target only"]["target_calls_per_image"] == SCALES
    assert f"| {label} |" in (tmp_path / f"decode_{stage}.md").read_text()
    assert "3.00x" in capsys.readouterr().out
    with Image.open(tmp_path / f"decode_{stage}.png") as picture:
        assert picture.format == "PNG"


def test_rates_are_not_means_of_batches():
    first, second = (
        comparison(torch.full((rows, 1, 2, 2), value, dtype=torch.uint8)) for rows, value in ((1, 1), (3, 2))
    )
    sums = no_totals(SCALES)
    for part in (first, second):
        for name, value in part.totals().items():
            sums[name] += value
    assert rates(sums)["accepted_scales_per_call"] == 8 / 4
    assert rates(first.totals())["acceptance/scale_1"] == 1
    assert "acceptance/scale_2" not in rates(sums)


def test_fid_of_both_and_their_difference(tmp_path):
    options = {"features": Bright(), "cache_dir": str(tmp_path / "cache")}
    run = trainer(tmp_path, callbacks=[TargetCalls(**options)])
    run.validate(Comparing(), ToyImages(), verbose=False)
    found = seen(run)
    assert found["sdvar/target_fid"] == pytest.approx(0, abs=1e-6)  # its images are the data
    assert found["sdvar/fid"] == pytest.approx(found["sdvar/fid_difference"], abs=1e-6)
    assert found["sdvar/fid"] > 1
    again = trainer(tmp_path, callbacks=[TargetCalls(**options)])
    again.validate(Comparing(lossless=True), ToyImages(), verbose=False)
    assert seen(again)["sdvar/fid_difference"] == 0


def test_fit_logs_each_validation_and_writes_no_table(tmp_path):
    run = trainer(tmp_path, callbacks=[TargetCalls()], max_epochs=2, limit_train_batches=1)
    run.fit(Comparing(), ToyImages())
    assert seen(run) == pytest.approx(expected(), rel=1e-6)
    assert not (tmp_path / "decode_validate.json").exists()


def test_dashboards_get_timeline_histogram_and_table(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    loggers = [TensorBoardLogger(tmp_path, name="tb"), WandbLogger(save_dir=tmp_path, offline=True)]
    trainer(tmp_path, callbacks=[TargetCalls()], logger=loggers).test(Comparing(), ToyImages(), verbose=False)
    for logger in loggers:
        logger.finalize("success")
    wandb.finish()
    events = EventAccumulator(loggers[0].log_dir).Reload()
    assert events.Scalars("sdvar/target_calls")[0].value == expected()["sdvar/target_calls"]
    assert "sdvar/timeline/0" in events.Tags()["images"]
    assert "sdvar/decoders/text_summary" in events.Tags()["tensors"]
    (event,) = events.Histograms("sdvar/accepted")
    assert event.histogram_value.num == expected()["sdvar/accepted_scales"]
    logged = {key: value for row in offline_history(tmp_path) for key, value in row.items()}
    assert logged["sdvar/accepted/values"] == [11, 5, 0]
    assert logged["sdvar/decoders/_type"] == "table-file"
    assert logged["sdvar/decoders/nrows"] == 2
    assert logged["sdvar/timeline/count"] == 1
    assert logged["sdvar/speedup"] == 3


def test_bad_options(tmp_path):
    with pytest.raises(ValueError, match="Linear has no int attribute num_features"):
        TargetCalls(features=torch.nn.Linear(1, 1))
    with pytest.raises(
        MisconfigurationException, match="TargetCalls needs a module that compares decoders, as LitSDVAR"
    ):
        trainer(tmp_path, callbacks=[TargetCalls()]).fit(TwoLevels(), ToyImages())


def test_two_ranks(tmp_path):
    ranks, output = two_ranks(Path(__file__).with_name("two_ranks_decode.py"), tmp_path)
    for rank in ranks:
        toy = {name: value for name, value in rank["toy"].items() if "fid" not in name}
        assert toy == pytest.approx(expected(), rel=1e-6)
        assert rank["toy"]["sdvar/target_fid"] == pytest.approx(0, abs=1e-6)
        assert rank["toy"]["sdvar/fid"] > 1
    numbers = [keys(Images(11)[k]["canvas"][None])[0] for k in range(11)]
    assert ranks[0]["decoded"] == numbers[::2]
    assert ranks[1]["decoded"] == numbers[1::2]
    assert output.count("Written to") == 4  # the toy's and the pairs', by rank zero
    # with real decoders, two processes decode as one does
    from two_ranks_decode import DECODERS, decoded

    for decoder in DECODERS:
        scores, canvases = decoded(tmp_path / decoder, decoder)
        for number, rank in enumerate(ranks):
            found, images = rank["pairs"][decoder]
            counts = {name: value for name, value in found.items() if "ms_per" not in name and "speedup" not in name}
            assert counts == pytest.approx({name: scores[name] for name in counts}, rel=1e-5)
            assert counts["sdvar/images"] == 7
            assert images == canvases[number::2]
