"""Run by test_ddp.py, in two processes: writes down which data each rank is given.

Arguments: folder of songs, folder of the cache, folder for the records.
"""

import sys

from data_recorder import TWO_RANKS, Recorder, trainer

from datamodules import GenerationRequest, PianoRollDataModule


def main(songs: str, cache: str, records: str) -> None:
    run, model = trainer(**TWO_RANKS), Recorder()
    lists = {"train": ["a/*"], "val": ["b/01.mid", "b/03.mid"]}
    options = {"window": 16, "batch_size": 2, "cache_dir": cache}
    run.fit(model, PianoRollDataModule(songs, samples_per_epoch=13, num_workers=1, split_files=lists, **options))
    record = {"mean": float(run.callback_metrics["val/mean"])}
    for samples in (5, 1):
        model.seen["predict"] = []
        request = GenerationRequest(num_samples=samples, seed=10)
        run.predict(model, PianoRollDataModule(songs, predict=request, **options), return_predictions=False)
        record[f"predict {samples}"] = model.seen["predict"]
    model.write(records, **record)


if __name__ == "__main__":
    main(*sys.argv[1:])
