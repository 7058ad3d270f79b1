"""Run by test_imagenet.py, in two processes: writes down which images each rank is given.

Arguments: folder of images, folder for the records.
"""

import sys

from data_recorder import TWO_RANKS, Recorder, trainer

from datamodules import ImageNetDataModule


def main(folder: str, records: str) -> None:
    run, model = trainer(**TWO_RANKS), Recorder()
    run.fit(model, ImageNetDataModule(folder, size=8, num_classes=3, batch_size=1, flip=False, num_workers=1))
    model.write(records, mean=float(run.callback_metrics["val/mean"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
